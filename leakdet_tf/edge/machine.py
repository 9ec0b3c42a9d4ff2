"""What a machine says of itself: processor, memory, temperature, clock, throttling. Read from files that Linux keeps.

``root`` is the folder that stands for ``/``. What a machine does not tell is None or empty, never a guess.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

RUNTIME_PACKAGES = ("ai-edge-litert", "onnxruntime", "tensorrt", "numpy", "pillow", "opencv-python-headless")
"""Packages whose versions explain a figure."""
THROTTLED = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage since boot",
    17: "clock capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}
"""The bits of a Raspberry Pi's ``vcgencmd get_throttled`` (Raspberry Pi documentation, "vcgencmd")."""
FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""Instructions that decide how fast a model is, as Linux names them: x86's, then ARM's."""
_ROOT = Path("/")
_PLAUSIBLE_C = (-40.0, 150.0)  # an absent sensor tells numbers far outside
_WAIT_S = 5


def facts(root: Path = _ROOT) -> dict[str, Any]:
    """What a reader needs to judge a latency: board, processor, cores, governor, memory, system, versions, load.

    ``cores`` are those that this process may use; ``load_average`` is that of the last minute, other work included.
    """
    return {
        "board": _text(root / "proc/device-tree/model"),
        "cpu": _cpu(root),
        "architecture": platform.machine(),
        "cores": cores(),
        "governor": ", ".join(sorted(set(_each(root, "scaling_governor")))) or None,
        "max_mhz": max(_numbers(_each(root, "cpuinfo_max_freq"), 1e-3), default=None),
        "memory_mb": _meminfo_mb(root, "MemTotal"),
        "system": _system(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version for name in RUNTIME_PACKAGES if (version := _version(name))},
        "load_average": _load(),
    }


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def features(root: Path = _ROOT) -> list[str] | None:
    """Those of :data:`FEATURES` that every core has; None where ``/proc/cpuinfo`` does not tell."""
    lists = re.findall(r"^(?:flags|Features)\s*:(.*)$", _text(root / "proc/cpuinfo") or "", re.M)
    if not lists:
        return None
    common = set.intersection(*(set(one.split()) for one in lists))
    return [name for name in FEATURES if name in common]


def free_bytes(root: Path = _ROOT) -> int | None:
    """Memory that this process can still take without swapping: ``MemAvailable``, or less where a control group (of a
    container, a service, a SLURM job) leaves less; None where the machine does not tell.

    What a group keeps of files counts as free, as it does in ``MemAvailable``, for it is given up when the limit is
    reached (Linux, "Control Group v2" and "Memory Resource Controller").
    """
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(root / "proc/meminfo") or "", re.M)
    return min([*([int(match[1]) * 1024] if match else []), *_left_in_groups(root)], default=None)


def free_mb(root: Path = _ROOT) -> int | None:
    """:func:`free_bytes` in MB."""
    free = free_bytes(root)
    return None if free is None else free >> 20


def sensors(root: Path = _ROOT) -> dict[str, Any]:
    """The machine's state at this moment: ``temp_c``, ``temps_c`` by zone, ``mhz`` and ``throttled``; None if not told.

    ``temp_c`` is the hottest zone named after the CPU, of all zones where none is; ``mhz`` the mean clock of the cores.
    """
    zones = temperatures(root)
    of_cpu = [value for name, value in zones.items() if "cpu" in name.lower()]
    clocks = _numbers(_each(root, "scaling_cur_freq"), 1e-3)
    return {
        "temp_c": max(of_cpu or zones.values(), default=None),
        "temps_c": zones,
        "mhz": sum(clocks) / len(clocks) if clocks else None,
        "throttled": throttled(),
    }


def temperatures(root: Path = _ROOT) -> dict[str, float]:
    """°C by zone from ``/sys/class/thermal``; zones that cannot be read or tell nonsense are left out.

    Zones of one name are told apart by their number.
    """
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        values = [value for value in _numbers([_text(zone / "temp") or ""], 1e-3) if _likely(value)]
        name = _text(zone / "type") or zone.name
        for value in values:
            found[name if name not in found else f"{name} {zone.name.removeprefix('thermal_zone')}"] = value
    return found


def throttled() -> int | None:
    """The flags of ``vcgencmd get_throttled``, see :data:`THROTTLED`; None where there is no such program or answer."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, errors="replace", timeout=_WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"throttled=0x([0-9a-fA-F]+)", done.stdout)
    return int(match[1], 16) if match else None


def throttle_words(flags: int) -> list[str]:
    """What the flags of :func:`throttled` say, in words."""
    return [text for bit, text in THROTTLED.items() if flags >> bit & 1]


def resident(root: Path = _ROOT) -> tuple[int, int] | None:
    """Bytes of this process in memory: (now, at most so far); None where ``/proc`` does not tell.

    ``VmHWM`` belongs to the running program alone. ``ru_maxrss`` would not do: Linux hands a process that is started
    from a large one the large one's peak.
    """
    text = _text(root / "proc/self/status") or ""
    now, peak = (re.search(rf"^{key}:\s+(\d+) kB$", text, re.M) for key in ("VmRSS", "VmHWM"))
    if not now or not peak:
        return None
    return int(now[1]) * 1024, max(int(now[1]), int(peak[1])) * 1024


def _text(path: Path) -> str | None:
    # device-tree texts end in a zero byte
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\x00 \n\t") or None
    except OSError:
        return None


def _each(root: Path, name: str) -> list[str]:
    paths = sorted((root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/cpufreq/{name}"))
    return [text for path in paths if (text := _text(path))]


def _numbers(texts: list[str], scale: float) -> list[float]:
    return [int(text) * scale for text in texts if re.fullmatch(r"-?\d{1,9}", text)]


def _likely(value: float) -> bool:
    return math.isfinite(value) and _PLAUSIBLE_C[0] <= value <= _PLAUSIBLE_C[1]


def _cpu(root: Path) -> str | None:
    # ARM kernels name no model, only who designed the core, and which
    text = _text(root / "proc/cpuinfo") or ""
    if match := re.search(r"^model name\s*:\s*(.+)$", text, re.M):
        return match[1].strip()
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)$", text, re.M)))
    maker = re.search(r"^CPU implementer\s*:\s*(\S+)$", text, re.M)
    return f"implementer {maker[1]}, part {', '.join(parts)}" if maker and parts else None


def _left_in_groups(root: Path) -> list[int]:
    # Each group above limits too. Inside a container the path may be the host's, of which only the top is to be seen.
    found = []
    for controllers, path in re.findall(r"^\d+:(.*?):(.*)$", _text(root / "proc/self/cgroup") or "", re.M):
        if controllers and "memory" not in controllers.split(","):
            continue
        first = controllers != ""
        top = root / "sys/fs/cgroup" / ("memory" if first else "")
        parts = [] if ".." in path.split("/") else [part for part in path.split("/") if part]
        folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        found += [left for folder in folders for left in _left_in(folder, first=first)]
    return found


def _left_in(group: Path, *, first: bool) -> list[int]:
    limits, usage = ["memory.max", "memory.high"], "memory.current"
    if first:  # the first version of control groups has other names
        limits, usage = ["memory.limit_in_bytes"], "memory.usage_in_bytes"
    used = re.fullmatch(r"\d+", _text(group / usage) or "")
    if not used:
        return []
    kind = "total_" if first else ""
    files = re.findall(rf"^{kind}(?:in)?active_file (\d+)$", _text(group / "memory.stat") or "", re.M)
    taken = int(used[0]) - sum(map(int, files))
    texts = [text for name in limits if re.fullmatch(r"\d+", text := _text(group / name) or "")]
    return [max(0, int(text) - taken) for text in texts]


def _meminfo_mb(root: Path, key: str) -> int | None:
    match = re.search(rf"^{key}:\s+(\d+) kB$", _text(root / "proc/meminfo") or "", re.M)
    return int(match[1]) // 1024 if match else None


def _system(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', _text(root / "etc/os-release") or "", re.M)
    return match[1] if match else platform.system()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
