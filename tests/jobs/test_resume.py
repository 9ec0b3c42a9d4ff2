"""``fit --resume``: which run is meant, who may be at work in it, and that it ends as if it had not been stopped."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leakdet_tf.cli import main
from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, LeakdetError, TrainingError
from leakdet_tf.edge import machine
from leakdet_tf.jobs.fit import Fitted, fit
from leakdet_tf.jobs.run import resume as room
from leakdet_tf.jobs.run.resume import FINISHED, LOCK, drop_dead_lock, find_run, is_finished, locked, same_experiment
from leakdet_tf.training.faults import Explosion

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")


def made(folder: Path, name: str, *files: str) -> Path:
    run = folder / name
    (run / "checkpoints").mkdir(parents=True)
    for file in files:
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_text("")
    return run


def one_line(caught: pytest.ExceptionInfo[LeakdetError]) -> str:
    assert str(caught.value).isprintable()
    return str(caught.value)


def told(epoch: int, act: Callable[[], Any], lines: list[str]) -> Callable[[str], None]:
    """A log that acts when an epoch's line comes, which is before its checkpoint is written."""

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith(f"epoch {epoch}/"):
            act()

    return log


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Overrides for a run of seconds."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        from few_layers import OVERRIDES

        yield [*OVERRIDES, f"data.root={folder / 'data'}", f"runs={folder / 'runs'}", "train.epochs=2"]


@pytest.fixture(scope="module")
def whole(small: list[str]) -> Path:
    """A run that nothing stopped."""
    return fit(EXPERIMENT, small, log=lambda line: None).folder


@pytest.fixture(scope="module")
def ended(
    small: list[str], whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Fitted, list[str], list[str]]:
    """The same run, ended by SIGTERM in its first epoch's end, its overrides, and what it said."""
    mine = [*small, f"runs={tmp_path_factory.mktemp('ended')}"]
    lines: list[str] = []
    log = told(1, lambda: os.kill(os.getpid(), signal.SIGTERM), lines)
    return fit(EXPERIMENT, mine, log=log), mine, lines


def test_a_terminated_run_says_how_to_go_on(ended: tuple[Fitted, list[str], list[str]]) -> None:
    done, _, lines = ended
    assert (done.terminated, done.interrupted) == (True, False)
    assert not is_finished(done.folder)
    assert not (done.folder / LOCK).exists()
    assert [path.name for path in (done.folder / "checkpoints").glob("epoch-*")] == ["epoch-0001"]
    assert any(line.startswith("terminated after 1 epoch; nothing is lost") for line in lines)
    assert lines[-1].endswith(f"--resume {done.folder}")


@pytest.fixture(scope="module")
def resumed(
    ended: tuple[Fitted, list[str], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The same run after it was resumed, in a copy of its folder, and what that said."""
    done, mine, _ = ended
    runs = tmp_path_factory.mktemp("resumed")
    copy = Path(shutil.copytree(done.folder, runs / done.folder.name))
    (copy / "checkpoints" / ".epoch-0002.1").mkdir()
    (copy / "export" / ".tflite_float32.half").mkdir(parents=True)
    (copy / LOCK).write_text(json.dumps({"pid": 2**22 + 1, "host": platform.node(), "job": ""}))
    lines: list[str] = []
    again = fit(EXPERIMENT, mine, log=lines.append, resume=str(runs))
    assert again.folder == copy
    return copy, lines


def test_it_ends_in_the_weights_of_the_unbroken_run(resumed: tuple[Path, list[str]], whole: Path) -> None:
    folder, lines = resumed
    assert "resumed from checkpoint epoch-0001: 1 epoch done" in lines
    assert [line for line in lines if line.startswith(f"process {2**22 + 1} was killed in this run")]
    assert not [line for line in lines if line.startswith("note: the run was started with")]
    assert (
        Contract.load(folder / "contract.json").weights_sha256 == Contract.load(whole / "contract.json").weights_sha256
    )
    assert (folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    both = [json.loads((one / "metrics.json").read_text())["metrics"] for one in (folder, whole)]
    assert both[0] == both[1]


def test_its_folder_goes_on_and_is_tidy(
    resumed: tuple[Path, list[str]], ended: tuple[Fitted, list[str], list[str]]
) -> None:
    folder, _ = resumed
    log = (folder / "log.txt").read_text()
    assert "epoch 1/2" in log
    assert "epoch 2/2" in log
    assert log.startswith((ended[0].folder / "log.txt").read_text())
    assert (folder / "environment.json").read_bytes() == (ended[0].folder / "environment.json").read_bytes()
    assert len(list((folder / "tensorboard").rglob("events.out.*"))) > len(
        list((ended[0].folder / "tensorboard").rglob("events.out.*"))
    )
    assert not list(folder.rglob(".*"))
    assert not (folder / LOCK).exists()
    assert (folder / "export" / "tflite_float32" / "model.tflite").is_file()


def test_ended_in_its_first_epoch_it_goes_on_after_the_step(
    small: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Explosion.on_train_batch_end

    def ending(explosion: Explosion, batch: int, logs: Any = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(explosion, batch, logs)

    mine, lines = [*small, f"runs={tmp_path}"], list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(Explosion, "on_train_batch_end", ending)
        done = fit(EXPERIMENT, mine, log=lines.append)
    assert done.terminated
    assert "terminated after 0 epochs and 1 step; nothing is lost. Go on with:" in lines
    assert not (done.folder / "history.csv").exists()
    again = fit(EXPERIMENT, mine, log=lines.append, resume=str(done.folder))
    assert "resumed from checkpoint epoch-0000-step-000001: 0 epochs and 1 step done" in lines
    contracts = [Contract.load(one / "contract.json").weights_sha256 for one in (again.folder, whole)]
    assert contracts[0] == contracts[1]
    assert (again.folder / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


def test_a_finished_run_is_left_alone(
    resumed: tuple[Path, list[str]], ended: tuple[Fitted, list[str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = resumed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    sets = [part for one in ended[1] for part in ("--set", one)]
    assert main(["fit", EXPERIMENT, *sets, "--resume", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: finished already, nothing is left to do\n"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_lock_of_one_killed_after_its_last_step_goes_and_a_held_one_stays(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**22 + 1, "host": platform.node(), "job": ""}))
    drop_dead_lock(tmp_path)
    assert not list(tmp_path.iterdir())
    with locked(tmp_path):
        drop_dead_lock(tmp_path)
        assert (tmp_path / LOCK).is_file()


def test_a_run_ended_after_its_training_trains_no_more(
    resumed: tuple[Path, list[str]], ended: tuple[Fitted, list[str], list[str]], whole: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(resumed[0], tmp_path / "run"))
    for name in (FINISHED, "metrics.json", "model.keras"):
        (copy / name).unlink()
    lines: list[str] = []
    fit(EXPERIMENT, ended[1], log=lines.append, resume=str(copy))
    assert not [line for line in lines if line.startswith("epoch ")]
    assert is_finished(copy)
    assert Contract.load(copy / "contract.json").weights_sha256 == Contract.load(whole / "contract.json").weights_sha256


def test_without_a_checkpoint_it_begins_anew_in_the_folder(
    ended: tuple[Fitted, list[str], list[str]], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(ended[0].folder, tmp_path / "run"))
    shutil.rmtree(copy / "checkpoints" / "epoch-0001")
    (copy / "contract.json").unlink()  # killed while the first files were written
    lines: list[str] = []
    log = told(1, lambda: os.kill(os.getpid(), signal.SIGTERM), lines)
    done = fit(EXPERIMENT, ended[1], log=log, resume=str(copy))
    assert (done.folder, done.terminated) == (copy, True)
    assert "resumed: there is no checkpoint yet, training begins again in this folder" in lines
    assert (copy / "history.csv").read_bytes() == (ended[0].folder / "history.csv").read_bytes()
    assert (copy / "contract.json").is_file()


def test_another_experiment_or_data_are_refused(ended: tuple[Fitted, list[str], list[str]], tmp_path: Path) -> None:
    done, mine, _ = ended
    with pytest.raises(
        ConfigError, match=r"started with train\.learning_rate = 0\.001, not 0\.002 \(and 1 more\)"
    ) as no:
        fit(
            EXPERIMENT,
            [*mine, "train.learning_rate=2e-3", "train.patience=3"],
            log=lambda line: None,
            resume=str(done.folder),
        )
    one_line(no)
    copy = Path(shutil.copytree(done.folder, tmp_path / "run"))
    data = json.loads((copy / "data.json").read_text())
    files = data["val"]["files"]
    files[sorted(files)[1]] = ["0" * 64]
    data["val"]["sha256"] = "0" * 64
    (copy / "data.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="val: 1 pictures are others") as changed:
        fit(EXPERIMENT, mine, log=lambda line: None, resume=str(copy))
    assert sorted(files)[1] in one_line(changed)


def test_a_run_s_own_file_that_was_edited_is_noticed(
    ended: tuple[Fitted, list[str], list[str]], tmp_path: Path
) -> None:
    done, mine, _ = ended
    copy = Path(shutil.copytree(done.folder, tmp_path / "run"))
    text = (copy / "experiment.toml").read_text()
    (copy / "experiment.toml").write_text(text.replace("patience = 0", "patience = 7"))
    with pytest.raises(TrainingError, match=r"another experiment\.toml"):
        fit(EXPERIMENT, [*mine, "train.patience=7"], log=lambda line: None, resume=str(copy))


def test_what_cannot_change_the_weights_may_differ(ended: tuple[Fitted, list[str], list[str]]) -> None:
    done, mine, _ = ended
    for other in (
        "runs=elsewhere",
        'task.colors={gas = "#010203"}',
        'track={mlflow = "http://other", experiment = "x"}',
        'export={formats = [], pictures = 3, golden = 1, key = "k"}',
        "evaluate={resamples = 100, confidence = 0.9, worst = 1, calibrate = false, max_risk = 0.1}",
    ):
        same_experiment(done.folder, load(EXPERIMENT, [*mine, other]))
    with pytest.raises(ConfigError, match=r"evaluate\.nms_iou = 0\.7, not 0\.5"):  # a detector's best epoch hangs on it
        same_experiment(done.folder, load(EXPERIMENT, [*mine, "evaluate.nms_iou=0.5"]))
    with pytest.raises(ConfigError, match=r"data\.synth\.seed = 7, not 8"):
        same_experiment(done.folder, load(EXPERIMENT, [*mine, "data.synth.seed=8"]))


def test_which_run_is_meant(tmp_path: Path) -> None:
    runs = tmp_path / "gas"
    old = made(runs, "20260101-000000")
    second = made(runs, "20260101-000001-2")
    made(runs, "20260101-000001")
    finished = made(runs, "20260202-000000", FINISHED)
    before_checkpoints = made(runs, "20260203-000000", "metrics.json")
    (runs / "notes").mkdir()
    assert find_run(str(old)) == old
    assert find_run(str(runs)) == second
    assert find_run(str(finished)) == finished
    assert is_finished(before_checkpoints)
    assert not is_finished(made(runs, "20260204-000000", "metrics.json", "checkpoints/epoch-0001/state.json"))
    for run in runs.glob("2026*"):
        (run / FINISHED).write_text("")
    assert find_run(str(runs)).name == "20260204-000000"


@pytest.mark.parametrize(("place", "text"), [("none", "no such folder"), (".", "holds no run")])
def test_no_run_is_one_line(place: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        find_run(str(tmp_path / place))
    one_line(caught)


def test_two_in_one_run_are_refused(ended: tuple[Fitted, list[str], list[str]], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ended[0].folder, tmp_path / "run"))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from leakdet_tf.jobs.run.resume import locked\n"
            "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(copy),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TrainingError, match=f"process {holder.pid} on {platform.node()} is at work") as caught:
        fit(EXPERIMENT, ended[1], log=lambda line: None, resume=str(copy))
    one_line(caught)
    holder.kill()
    holder.communicate()
    assert json.loads((copy / LOCK).read_text())["pid"] == holder.pid
    with locked(copy):  # its holder is dead
        assert json.loads((copy / LOCK).read_text())["pid"] == os.getpid()
        with pytest.raises(TrainingError, match="at work"), locked(copy):
            pytest.fail("both are in")
        assert (copy / LOCK).exists(), "who was refused removed the other's lock"
    assert not (copy / LOCK).exists()


def test_a_lock_of_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"pid": 1, "host": "node77", "job": "4711"}
    (tmp_path / LOCK).write_text(json.dumps(said))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(TrainingError, match=r"process 1 on node77 .*delete") as caught, locked(tmp_path):
        pass
    one_line(caught)
    assert json.loads((tmp_path / LOCK).read_text()) == said
    monkeypatch.setenv("SLURM_JOB_ID", "4712")
    with pytest.raises(TrainingError, match="node77"), locked(tmp_path):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "4711")  # the same job, started again after its node was lost
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == platform.node()


def test_a_disk_without_locks_asks_whether_the_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_flock", lambda handle: None)
    (tmp_path / LOCK).write_text(json.dumps({"pid": os.getppid(), "host": platform.node(), "job": ""}))
    with pytest.raises(TrainingError, match=f"process {os.getppid()} "), locked(tmp_path):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / LOCK).write_text(json.dumps({"pid": dead.pid, "host": platform.node(), "job": ""}))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_lock_that_was_never_written_is_taken(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_other_versions_and_another_machine_are_told(
    ended: tuple[Fitted, list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = json.loads((ended[0].folder / "environment.json").read_text())
    said["packages"]["keras"] = "2.0"
    (tmp_path / "environment.json").write_text(json.dumps(said))
    lines: list[str] = []
    room.tell_machine(tmp_path, lines.append)
    assert len(lines) == 1
    assert "keras 2.0" in lines[0]
    before = {key: said["threads"][key] for key in ("TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS")}
    for key, value in before.items():
        monkeypatch.setenv(key, f"not {value}")
    monkeypatch.setattr(machine, "cores", lambda: 77)
    room.tell_machine(ended[0].folder, lines.append)
    assert lines[1:] == [
        f"note: the run was started with cores {said['cores']}, now 77; "
        + "; ".join(f"{key} {value}, now not {value}" for key, value in before.items())
        + ": the weights' last bits may differ from the unbroken's"
    ]
    for key in ("cpu", "cores", "threads"):  # as of a run that an earlier version began
        del said[key]
    said["packages"] = {}
    (tmp_path / "environment.json").write_text(json.dumps(said))
    room.tell_machine(tmp_path, pytest.fail)
