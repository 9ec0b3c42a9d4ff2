"""What a machine tells of itself, read from trees that look like a Pi's, a Jetson's and one that tells nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leakdet_tf.edge import machine


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode())


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\x00")
    core = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    write(tmp_path, "proc/cpuinfo", "".join(core.format(number) for number in range(4)))
    write(tmp_path, "proc/meminfo", "MemTotal:        8254976 kB\nMemFree:           1000 kB\n")
    write(tmp_path, "etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "61850\n")
    for number, clock in enumerate((2400000, 2400000, 1500000, 1500000)):
        folder = f"sys/devices/system/cpu/cpu{number}/cpufreq"
        write(tmp_path, f"{folder}/scaling_cur_freq", f"{clock}\n")
        write(tmp_path, f"{folder}/cpuinfo_max_freq", "2400000\n")
        write(tmp_path, f"{folder}/scaling_governor", "ondemand\n")
    return tmp_path


def program(folder: Path, text: str) -> None:
    write(folder, "bin/vcgencmd", f"#!/bin/sh\n{text}\n")
    (folder / "bin" / "vcgencmd").chmod(0o755)


def test_a_pi_s_facts(pi: Path) -> None:
    found = machine.facts(pi)
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cpu"] == "implementer 0x41, part 0xd0b"
    assert found["governor"] == "ondemand"
    assert found["max_mhz"] == pytest.approx(2400)
    assert found["memory_mb"] == 8254976 // 1024
    assert found["system"] == "Debian GNU/Linux 13 (trixie)"
    assert found["packages"]["numpy"]
    assert found["cores"] == len(os.sched_getaffinity(0))


def test_the_instructions_that_every_core_has(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "flags\t\t: fpu avx2 fma avx512f amx_tile\n\nflags\t\t: fpu avx2 avx512f fma\n")
    assert machine.features(tmp_path) == ["avx2", "fma", "avx512f"]
    write(tmp_path, "proc/cpuinfo", "Features\t: fp asimd evtstrm asimddp i8mm\n")
    assert machine.features(tmp_path) == ["asimd", "asimddp", "i8mm"]
    write(tmp_path, "proc/cpuinfo", "processor : 0\n")
    assert machine.features(tmp_path) is None


def test_free_memory(tmp_path: Path) -> None:
    assert machine.free_mb(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal: 4096000 kB\nMemAvailable: 2048000 kB\n")
    assert machine.free_mb(tmp_path) == 2000
    assert machine.free_bytes(tmp_path) == 2048000 * 1024


def test_free_memory_is_a_plausible_number_of_bytes() -> None:
    free = machine.free_bytes()
    assert free is None or 2**20 < free < 2**50


GROUPS = {
    "in a container": ("0::/", {"": (3000, 1000, 200)}, 2200),
    "as a service": ("0::/system.slice/fit.service", {"system.slice/fit.service": (3000, 1000, 200)}, 2200),
    "limited above": (
        "0::/user.slice/job",
        {"user.slice": (1500, 900, 0), "user.slice/job": (3000, 1000, 0)},
        600,
    ),
    "limited twice": ("0::/job", {"job": (3000, 1000, 0, 1700)}, 700),
    "not limited": ("0::/job", {"job": ("max", 1000, 200, "max")}, 4096),
    "much limited": ("0::/job", {"job": (9000, 1000, 200)}, 4096),
    "all used up": ("0::/job", {"job": (1000, 1200, 50)}, 0),
    "the path is the host's": ("0::/docker/0123abc", {"": (3000, 1000, 200)}, 2200),
    "the path leads out": ("0::/../other", {"": (3000, 1000, 200)}, 2200),
    "the first version": ("5:cpu,memory:/slurm/job_7\n0::/", {"memory/slurm/job_7": (3000, 1000, 200)}, 2200),
    "the first version, in a container": ("4:memory:/docker/0123abc", {"memory": (3000, 1000, 200)}, 2200),
    "the first version, not limited": ("4:memory:/", {"memory": (9223372036854771712, 1000, 0)}, 4096),
    "another controller": ("4:memoryless:/job", {"memory/job": (3000, 1000, 200)}, 4096),
    "nonsense": ("0::/job", {"job": ("much", "little", 0)}, 4096),
    "a line of another kind": ("none\n0::/job", {"job": (3000, 1000, 200)}, 2200),
}
"""Lines of ``/proc/self/cgroup``; by group its limit, use, files and softer limit; what is free. All in kB."""


@pytest.mark.parametrize("case", GROUPS)
def test_free_memory_of_a_group(case: str, tmp_path: Path) -> None:
    line, groups, free = GROUPS[case]
    write(tmp_path, "proc/meminfo", "MemTotal: 8192 kB\nMemAvailable: 4096 kB\n")
    write(tmp_path, "proc/self/cgroup", f"{line}\n")

    def said(value: int | str) -> str:
        return str(value * 1024 if isinstance(value, int) and value < 2**40 else value)

    for group, (limit, used, files, *high) in groups.items():
        folder = f"sys/fs/cgroup/{group}"
        first = group.startswith("memory")
        write(tmp_path, f"{folder}/memory.{'limit_in_bytes' if first else 'max'}", said(limit))
        write(tmp_path, f"{folder}/memory.{'usage_in_bytes' if first else 'current'}", said(used))
        kind = "total_" if first else ""
        stat = f"anon 5\n{kind}inactive_file {files * 512}\n{kind}active_file {files * 512}\nworkingset_x 4\n"
        write(tmp_path, f"{folder}/memory.stat", stat + ("inactive_file 7\nactive_file 7\n" if first else ""))
        for value in high:
            write(tmp_path, f"{folder}/memory.high", said(value))
    assert machine.free_bytes(tmp_path) == free * 1024


def test_a_limit_tells_of_memory_where_nothing_else_does(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "3000\n")
    assert machine.free_bytes(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/memory.current", "1000\n")
    assert machine.free_bytes(tmp_path) == 2000


def test_temperature_clock_and_throttling(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, 'test "$1" = get_throttled && echo throttled=0x50004')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    found = machine.sensors(pi)
    assert found["temp_c"] == pytest.approx(61.85)
    assert found["mhz"] == pytest.approx(1950)
    assert found["throttled"] == 0x50004
    assert machine.throttle_words(0x50004) == ["throttled", "under-voltage since boot", "throttled since boot"]
    assert machine.throttle_words(0) == []


@pytest.mark.parametrize("text", ["exit 1", "echo VCHI initialization failed", "echo throttled=no"])
def test_a_program_that_does_not_answer_tells_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert machine.throttled() is None


def test_zones_that_tell_nonsense_or_nothing_are_left_out(tmp_path: Path) -> None:
    """A Jetson has many zones: of one name, switched off, or at a number that stands for no reading."""
    zones = {"cpu-thermal": "55500", "gpu-thermal": "-256000", "tj-thermal": "nan", "soc0-thermal": "70000"}
    for number, (name, temperature) in enumerate(zones.items()):
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/type", name)
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", temperature)
    write(tmp_path, "sys/class/thermal/thermal_zone4/type", "cpu-thermal")
    write(tmp_path, "sys/class/thermal/thermal_zone4/temp", "57000")
    (tmp_path / "sys/class/thermal/thermal_zone5/temp").mkdir(parents=True)
    assert machine.temperatures(tmp_path) == {"cpu-thermal": 55.5, "soc0-thermal": 70.0, "cpu-thermal 4": 57.0}
    assert machine.sensors(tmp_path)["temp_c"] == 57.0, "of the CPU's zones the hottest"


def test_without_a_zone_of_the_cpu_the_hottest_counts(tmp_path: Path) -> None:
    for number, temperature in enumerate(("40000", "41000")):
        write(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", temperature)
    assert machine.sensors(tmp_path)["temp_c"] == 41.0


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert machine.sensors(tmp_path) == {"temp_c": None, "temps_c": {}, "mhz": None, "throttled": None}
    found = machine.facts(tmp_path)
    assert (found["board"], found["cpu"], found["governor"], found["memory_mb"]) == (None, None, None, None)
    assert machine.resident(tmp_path) is None


def test_memory_is_the_program_s_own(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t   60 kB\nVmRSS:\t   50 kB\n")
    assert machine.resident(tmp_path) == (50 * 1024, 60 * 1024)
    now, peak = machine.resident() or (0, 0)
    assert 10_000_000 < now <= peak
