"""sbatch scripts: what they ask for, and what they do when they are run, told to end, and run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.cli import main
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, LeakdetError
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.slurm import Request, Task, script, slurm

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "gas_unet.toml"
FAKE = """#!/bin/bash
printf '%s\\n' "$*" >>"$CALLS"
runs="$*"; runs="${runs##*--set runs=}"; place="${runs%% --resume*}/gas_unet/1/checkpoints"
mkdir -p "$place"
trap 'echo asked; sleep 0.2; if [ -z "$NO_STEP" ]; then mkdir "$place/epoch-000$(wc -l <"$CALLS")"; fi; exit 75' TERM
echo training
if [ -n "$SLOW" ]; then for _ in {1..300}; do sleep 0.1; done; fi
exit "${STATUS:-0}"
"""


def write(folder: Path, **parts: Any) -> list[Any]:
    given: dict[str, Any] = {
        "overrides": [f"runs={folder / 'runs'}"],
        "sweeps": [],
        "request": Request(),
        "out": str(folder / "out"),
        "submit": False,
        "log": lambda line: None,
    }
    experiments = parts.pop("experiments", [str(EXPERIMENT)])
    return slurm(experiments, **(given | parts))


@pytest.fixture
def stubs(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``scontrol`` notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text('#!/bin/bash\nprintf "%s\\n" "$*" >>"$CALLS.scontrol"\n')
    (folder / "scontrol").chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return {**kept, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that scripts call in place of ``fit``: it notes how it was called and ends with 75 on SIGTERM."""
    path = tmp_path / "it's python"
    path.write_text(FAKE)
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    return path


def start(place: Path, environment: dict[str, str], **more: str) -> subprocess.Popen[str]:
    # In a session of its own, as slurmd starts it, so that only the shell gets a signal.
    return subprocess.Popen(
        ["bash", str(place)],
        env={**environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], beginning: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith(beginning):
            return seen
    pytest.fail(f"it ended before '{beginning}': {seen}")


def ran(place: Path, environment: dict[str, str], **more: str) -> tuple[int, str]:
    """Exit status and output of a script that nobody disturbs."""
    process = start(place, environment, **more)
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def asked(place: Path) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in place.read_text().splitlines() if line.startswith("#SBATCH ")]


def test_a_single_job_asks_for_what_was_given(tmp_path: Path) -> None:
    lines: list[str] = []
    request = Request(gpus=2, time="1-12", partition="a100,h100", cpus=3, mem="500M")
    (written,) = write(tmp_path, request=request, log=lines.append)
    assert set(asked(written.script)) >= {
        "--job-name=gas_unet",
        f"--output={tmp_path}/out/gas_unet-%j.log",
        "--time=1-12",
        "--cpus-per-task=3",
        "--mem=500M",
        "--gres=gpu:2",
        "--partition=a100,h100",
        "--signal=B:TERM@120",
        "--requeue",
        "--open-mode=append",
    }
    assert not [line for line in asked(written.script) if "array" in line]
    assert (tmp_path / "out" / "gas_unet.toml").read_bytes() == EXPERIMENT.read_bytes()
    assert "submit with: sbatch " in lines[0]


def test_no_gpu_and_no_partition_are_not_asked_for(tmp_path: Path) -> None:
    (written,) = write(tmp_path, request=Request(gpus=0))
    assert not [line for line in asked(written.script) if line.startswith(("--gres", "--partition"))]


def test_a_sweep_is_an_array_with_its_table(tmp_path: Path) -> None:
    sweeps = ["train.learning_rate=1e-3, 3e-4", "data.inputs.image.size=[64, 64],[96, 96]", "model.encoder=resnet18"]
    (written,) = write(tmp_path, sweeps=sweeps)
    text = written.script.read_text()
    assert "--array=0-3" in asked(written.script)
    assert "#   2     train.learning_rate=3e-4 data.inputs.image.size=[64, 64] model.encoder=resnet18\n" in text
    assert len({task.runs for task in written.tasks}) == 4
    assert [task.overrides[0] for task in written.tasks] == ["train.learning_rate=1e-3"] * 2 + [
        "train.learning_rate=3e-4"
    ] * 2


def test_the_same_settings_are_the_same_runs_and_others_are_not(tmp_path: Path) -> None:
    (one,) = write(tmp_path)
    (again,) = write(tmp_path)
    (other,) = write(tmp_path, overrides=[f"runs={tmp_path / 'runs'}", "seed=1"], out=str(tmp_path / "b"))
    assert one == again
    assert one.tasks[0].runs != other.tasks[0].runs


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"sweeps": ["train.lrr=1,2"]}, "did you mean 'learning_rate'"),
        ({"sweeps": ["train.epochs"]}, "not KEY=VALUE"),
        ({"sweeps": ["train.epochs=1,,2"]}, "not KEY=VALUE"),
        ({"sweeps": ["data.inputs.image.size=[64, 64"]}, "not KEY=VALUE"),
        ({"sweeps": ["train.learning_rate=1e-3,0.001"]}, "means the same"),
        ({"sweeps": ["name=a,b"]}, "is not swept"),
        (
            {"sweeps": [f"seed={','.join(map(str, range(40)))}", f"train.epochs={','.join(map(str, range(1, 41)))}"]},
            "1600",
        ),
        ({"experiments": [str(EXPERIMENT), str(EXPERIMENT)]}, "stands twice"),
        ({"experiments": ["absent.toml"]}, "absent.toml"),
        ({"out": "a b"}, "--out a b"),
    ],
)
def test_what_cannot_be_obeyed_is_one_line_and_writes_nothing(parts: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(LeakdetError) as caught:
        write(tmp_path, **parts)
    assert text in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong", [{"time": "4h"}, {"time": "1; rm"}, {"mem": "16 G"}, {"mem": ""}, {"partition": "a b"}, {"time": "1\n2"}]
)
def test_a_request_that_sbatch_would_not_take_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong))} ") as caught:
        Request(**wrong)
    assert str(caught.value).isprintable()


def test_a_script_that_says_otherwise_is_not_overwritten(tmp_path: Path) -> None:
    (written,) = write(tmp_path, sweeps=["seed=1,2"])
    before = written.script.read_bytes()
    with pytest.raises(ConfigError, match="says otherwise"):
        write(tmp_path, sweeps=["seed=1,3"])
    assert written.script.read_bytes() == before


def test_words_with_quotes_and_blanks_come_through_whole(tmp_path: Path, fake: Path, stubs: dict[str, str]) -> None:
    odd = 'it\'s $(touch hit) `touch hit` "two"; touch hit # *'
    text = script(
        "gas_unet",
        [Task((f"name={odd}\nline",), str(tmp_path / "r u'n"))],
        experiment=tmp_path / "e'x.toml",
        overrides=[f"model.weights={odd}"],
        request=Request(),
    )
    place = tmp_path / "odd.sbatch"
    place.write_text(text)
    assert subprocess.run(["bash", "-n", str(place)], check=False).returncode == 0
    done = subprocess.run(["bash", str(place)], env=stubs, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "calls").read_text() == (
        f"-m leakdet_tf.cli fit {tmp_path}/e'x.toml --set model.weights={odd} --set name={odd}\nline "
        f"--set runs={tmp_path}/r u'n\n"
    )
    assert not list(tmp_path.rglob("hit"))
    assert not Path("hit").exists()


def test_each_member_of_an_array_has_its_overrides_and_its_runs(
    tmp_path: Path, fake: Path, stubs: dict[str, str]
) -> None:
    (written,) = write(tmp_path, sweeps=["seed=1,2"])
    for index, task in enumerate(written.tasks):
        more = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": str(8 + index), "SLURM_ARRAY_TASK_ID": str(index)}
        assert ran(written.script, stubs, **more)[0] == 0
        call = (tmp_path / "calls").read_text().splitlines()[-1]
        assert f"--set seed={index + 1} --set runs={task.runs}" in call
        assert "--resume" not in call
    assert not (tmp_path / "calls.scontrol").exists()
    assert ran(written.script, stubs, SLURM_ARRAY_TASK_ID="2") == (2, "there is no task 2 in this script\n")


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ({"SLURM_JOB_ID": "4711"}, "4711"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}, "7_1"),
    ],
    ids=["job", "array"],
)
def test_sigterm_is_passed_on_and_the_job_queued_again(
    job: dict[str, str], name: str, tmp_path: Path, fake: Path, stubs: dict[str, str]
) -> None:
    (written,) = write(tmp_path, sweeps=["seed=1,2"] if "_" in name else [])
    process = start(written.script, stubs, SLOW="1", **job)
    wait_for(process, "training")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 75
    assert "asked\n" in out
    assert (tmp_path / "calls.scontrol").read_text() == f"requeue incomplete {name}\n"
    status, out = ran(written.script, stubs, SLURM_RESTART_COUNT="1", **job)
    assert status == 0
    assert "restart 1" in out
    task = written.tasks[int(job.get("SLURM_ARRAY_TASK_ID", "0"))]
    assert (tmp_path / "calls").read_text().splitlines()[-1].endswith(f"--resume {task.runs}/gas_unet")


def test_two_starts_in_a_row_that_made_no_step_are_the_last(tmp_path: Path, fake: Path, stubs: dict[str, str]) -> None:
    """So that a job whose data take longer to read than it has does not run for ever; one may have been preempted."""
    (written,) = write(tmp_path)
    none = {"NO_STEP": "1"}
    for number, (more, queued) in enumerate([({}, 1), (none, 2), (none, 2), (none, 3), ({}, 4), (none, 5), (none, 5)]):
        process = start(written.script, stubs, SLOW="1", SLURM_JOB_ID="4711", **more)
        wait_for(process, "training")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 75, number
        assert len((tmp_path / "calls.scontrol").read_text().splitlines()) == queued
        said = "not queued again: two starts in a row came to no step of training; raise --time\n"
        assert (said in out) == (number in (2, 6))


def test_an_epoch_that_was_damaged_and_done_again_counts(tmp_path: Path, fake: Path, stubs: dict[str, str]) -> None:
    (written,) = write(tmp_path)
    place = Path(written.tasks[0].runs) / "gas_unet" / "1" / "checkpoints" / "epoch-0001"
    place.mkdir(parents=True)
    fake.write_text(f'#!/bin/bash\nmkdir "{place}.new"; rmdir "{place}"; mv "{place}.new" "{place}"; exit 75\n')
    assert ran(written.script, stubs, SLURM_JOB_ID="4711")[0] == 75
    assert (tmp_path / "calls.scontrol").read_text() == "requeue incomplete 4711\n"


@pytest.mark.parametrize("status", [1, 2, 130])
def test_other_ends_are_not_queued_again(status: int, tmp_path: Path, fake: Path, stubs: dict[str, str]) -> None:
    (written,) = write(tmp_path)
    assert ran(written.script, stubs, SLURM_JOB_ID="1", STATUS=str(status))[0] == status
    assert not (tmp_path / "calls.scontrol").exists()


def test_submitting_calls_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["slurm", str(EXPERIMENT), "--set", f"runs={tmp_path}", "--out", str(tmp_path / "out"), "--submit"]
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert main(arguments) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "Submitted batch job 12 $1"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert main(arguments) == 0
    assert f"Submitted batch job 12 {tmp_path}/out/gas_unet.sbatch" in capsys.readouterr().out
    program.write_text('#!/bin/sh\necho "sbatch: error: invalid\npartition" >&2\nexit 1\n')
    with pytest.raises(DataError, match=r"refused it .*invalid partition"):
        write(tmp_path, overrides=[f"runs={tmp_path}"], submit=True)
    assert not (tmp_path / "out" / "gas_unet.sbatch").exists()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    (written,) = write(tmp_path, sweeps=["seed=1,2"])
    done = subprocess.run(["shellcheck", str(written.script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_real_job_is_ended_and_resumed_to_the_weights_of_an_unbroken_one(
    tmp_path: Path, stubs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    overrides = [*OVERRIDES, "train.epochs=12", "export.formats=[]", f"data.root={tmp_path / 'data'}"]
    whole = fit(str(EXPERIMENT), [*overrides, f"runs={tmp_path / 'whole'}"], log=lambda line: None)
    (written,) = write(tmp_path, overrides=[*overrides, f"runs={tmp_path / 'runs'}"])
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**stubs, "SLURM_JOB_ID": "4711", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    process = start(written.script, environment)
    wait_for(process, "epoch 2/")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert (tmp_path / "calls.scontrol").read_text() == "requeue incomplete 4711\n"
    status, out = ran(written.script, environment, SLURM_RESTART_COUNT="1")
    assert status == 0, out
    assert "resumed from checkpoint epoch-00" in out
    same(written, whole.folder)


@pytest.mark.slow
def test_a_sweep_of_real_jobs_survives_sigterm_and_kill_9(tmp_path: Path, stubs: dict[str, str]) -> None:
    """Both members of an array at once, on a U-Net; one is ended at each turn, the other killed, until they finish."""
    overrides = [
        "data.synth.counts={train = 16, val = 4, test = 4}",
        "data.synth.size=[64, 64]",
        "data.inputs.image.size=[64, 64]",
        "model.encoder_options={width = 8}",
        "model.decoder_filters=[16, 16, 8, 8, 4]",
        "train.batch_size=4",
        "train.epochs=8",
        "export.formats=[]",
        f"data.root={tmp_path / 'data'}",
    ]
    rates = ("1e-3", "3e-3")
    whole = [
        fit(
            str(EXPERIMENT),
            [*overrides, f"train.learning_rate={rate}", f"runs={tmp_path / 'whole'}"],
            log=lambda line: None,
        )
        for rate in rates
    ]
    given = [*overrides, f"runs={tmp_path / 'runs'}"]
    (written,) = write(tmp_path, overrides=given, sweeps=[f"train.learning_rate={','.join(rates)}"])
    for turn in range(3):
        for index in range(2):
            ids = {"SLURM_JOB_ID": str(8 + index), "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": str(index)}
            process = start(written.script, {**stubs, **ids, "PYTHONUNBUFFERED": "1"}, SLURM_RESTART_COUNT=str(turn))
            wait_for(process, f"epoch {2 * turn + 2}/")
            if (turn + index) % 2:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            else:
                process.send_signal(signal.SIGTERM)
                out, _ = process.communicate(timeout=100)
                assert process.returncode == 75, out
    for index in range(2):
        ids = {"SLURM_JOB_ID": str(8 + index), "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": str(index)}
        status, out = ran(written.script, {**stubs, **ids})
        assert status == 0, out
        same(written, whole[index].folder, index)


def same(written: Any, whole: Path, index: int = 0) -> None:
    """A task has one run, and it ended as the unbroken one did."""
    (run,) = Path(written.tasks[index].runs, "gas_unet").iterdir()
    found = Contract.load(run / "contract.json").weights_sha256
    assert found == Contract.load(whole / "contract.json").weights_sha256
    assert (run / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
