"""``leakdet-tf doctor``: what this installation can do, and what to type where it cannot; for the base install too."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from leakdet_tf.core.version import __version__
from leakdet_tf.edge import machine
from leakdet_tf.jobs.run.probe import Found, probe

_RUNTIMES = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "keras": "keras",
}
"""Probes, and the package that each is of."""
_NOT_FOR_USERS = ("test", "dev")
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "KERAS_BACKEND")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)")


@dataclass(frozen=True)
class Diagnosis:
    """``facts`` as plain data, ``lines`` for people, and whether all that is installed ``works``."""

    facts: dict[str, Any]
    lines: list[str]
    works: bool


def diagnose() -> Diagnosis:
    """Look at Python, packages, extras, processor, memory and disk, and let every installed runtime run a tiny model.

    Nothing is changed and nothing fetched. Runtimes are tried one after the other in child processes.
    """
    lock = _lock()
    locked = _pins(lock) if lock else {}
    needs = requirements()
    packages = {name: _version(name) for names in needs.values() for name in names}
    facts: dict[str, Any] = {
        "leakdet_tf": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "lock": str(lock) if lock else None,
        "machine": {
            **machine.facts(),
            "features": machine.features(),
            "memory_free_mb": machine.free_mb(),
            "disk_free_mb": shutil.disk_usage(".").free >> 20,
            "settings": {name: os.environ[name] for name in _THREADS if name in os.environ},
        },
        "extras": {extra: [name for name in names if packages[name] is None] for extra, names in needs.items()},
        "packages": {
            name: {"version": version, "locked": locked.get(name)} for name, version in sorted(packages.items())
        },
        "runtimes": {name: probe(name) for name, package in _RUNTIMES.items() if _version(package) is not None},
    }
    works = not facts["extras"][""] and all(one["ok"] for one in facts["runtimes"].values())
    return Diagnosis(facts, list(_told(facts)), works)


def requirements() -> dict[str, list[str]]:
    """Names of the packages that each extra needs on this Python, those of the base install under ``""``."""
    told = metadata.metadata("leakdet_tf")
    extras = [extra for extra in told.get_all("Provides-Extra", []) if extra not in _NOT_FOR_USERS]
    needs: dict[str, list[str]] = {"": [], **{extra: [] for extra in extras}}
    for line in metadata.requires("leakdet_tf") or []:
        requirement, _, marker = line.partition(";")
        of = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        extra, found = of[1] if of else "", _REQUIREMENT.match(requirement)
        if extra in needs and found and _for_this_python(marker):
            needs[extra].append(_normal(found[1]))
    return needs


def _for_this_python(marker: str) -> bool:
    least = re.search(r"python_version >= ['\"](\d+)\.(\d+)['\"]", marker)
    return least is None or sys.version_info[:2] >= (int(least[1]), int(least[2]))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lock() -> Path | None:
    # beside the package where it was installed from a clone; a wheel has none
    name = f"py{sys.version_info[0]}{sys.version_info[1]}.txt"
    path = Path(__file__).parents[2] / "constraints" / name
    return path if path.is_file() else None


def _pins(lock: Path) -> dict[str, str]:
    lines = (line.split("==") for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line)
    return {_normal(name): version.split(";")[0].strip() for name, version in lines}


def _told(facts: dict[str, Any]) -> Any:
    here, runtimes = facts["machine"], facts["runtimes"]
    rows = [
        ("leakdet_tf", f"{facts['leakdet_tf']} on Python {facts['python']}, {facts['executable']}"),
        ("machine", _machine(here)),
        ("memory", f"{_gb(here['memory_free_mb'])} free of {_gb(here['memory_mb'])}"),
        ("disk", f"{_gb(here['disk_free_mb'])} free here"),
        ("threads", ", ".join([f"{here['cores']} cores", *(f"{k}={v}" for k, v in here["settings"].items())])),
        ("versions", _versions(facts)),
    ]
    for name in _RUNTIMES:
        if name in runtimes:
            rows.append((name, _runtime(name, runtimes[name])))
    for extra, missing in facts["extras"].items():
        rows.append((f"[{extra}]" if extra else "base", _extra(extra, missing)))
    width = max(len(name) for name, _ in rows)
    return (f"{name:<{width}}  {text}" for name, text in rows)


def _machine(here: dict[str, Any]) -> str:
    known = here["features"]
    can = "instructions not told" if known is None else " ".join(known) or "none of the fast instructions"
    names = [here["board"], here["cpu"], here["architecture"]]
    return f"{', '.join(name for name in names if name)}: {can}"


def _gb(mb: int | None) -> str:
    return "an unknown amount" if mb is None else f"{mb / 1024:.1f} GB"


def _versions(facts: dict[str, Any]) -> str:
    if facts["lock"] is None:
        return "no lock to compare with: this is not a clone, or not a Python that has one"
    others = [
        f"{name} {one['version']} ({one['locked']})"
        for name, one in facts["packages"].items()
        if one["version"] and one["locked"] and one["version"] != one["locked"]
    ]
    name = f"constraints/{Path(facts['lock']).name}"
    return f"others than in {name}: {', '.join(others)}" if others else f"as in {name}"


def _runtime(name: str, found: Found) -> str:
    version = _version(_RUNTIMES[name])
    if not found["ok"]:
        return f"{version} FAILS: {found['fault']}"
    if name == "keras":
        return f"{version} trains a step on {found['backend']}"
    return f"{version} computes; devices: {', '.join(found['devices'])}"


def _extra(extra: str, missing: list[str]) -> str:
    if not missing:
        return "installed"
    command = f"pip install 'leakdet_tf[{extra}]'" if extra else "pip install leakdet_tf"
    older = extra == "train" and sys.version_info < (3, 11)
    return f"not installed ({', '.join(missing)}): {command}{' (Python 3.11 or newer)' if older else ''}"
