"""The command line as a user meets it: one line for each fault, exit statuses, and nothing heavy for help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakdet_tf.cli import COMMANDS, main
from leakdet_tf.core.version import __version__

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must be refused and return its one line."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("leakdet-tf: ")
    return lines[0]


def test_help_lists_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert name in text
        assert summary in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_s_help_starts_with_the_table_s_summary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert COMMANDS[name][1] in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert "fitt" in capsys.readouterr().err


def test_a_wrong_key_names_file_key_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "fit", EXPERIMENT, "--set", "train.lrr=3")
    assert line.endswith("gas_unet.toml: train.lrr: unknown key; did you mean 'learning_rate'?")


def test_a_wrong_factory_argument_is_told_before_anything_is_rendered(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refused(
        capsys, "fit", EXPERIMENT, "--set", "model.encodr=resnet18", "--set", f"data.root={tmp_path / 'data'}"
    )
    assert "model.encodr" in line
    assert "did you mean 'encoder'?" in line
    assert not (tmp_path / "data").exists()


def test_a_missing_experiment_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert "absent.toml" in refused(capsys, "fit", "absent.toml")


def test_a_missing_data_folder_says_what_to_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    smoke = str(Path(EXPERIMENT).with_name("smoke_unet.toml"))
    line = refused(capsys, "fit", smoke, "--set", f"data.root={tmp_path / 'none'}", "--set", f"runs={tmp_path}")
    assert "no such folder" in line
    assert "data.root" in line


@pytest.mark.parametrize("command", [["evaluate"], ["predict"], ["export"]])
def test_a_folder_that_is_neither_run_nor_bundle(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    more = [str(tmp_path / "a.png")] if command == ["predict"] else []
    assert "neither a run nor a bundle" in refused(capsys, *command, str(tmp_path), *more)


def test_a_disk_that_fills_anywhere_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "runs/x/data.json")

    monkeypatch.setattr("leakdet_tf.jobs.fit.fit", full)
    line = refused(capsys, "fit", EXPERIMENT)
    assert "runs/x/data.json: No space left on device" in line


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "fit", "absent.toml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_predict_and_evaluate_from_the_command_line(
    bundle: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from leakdet_tf.config.loading import load

    test = Path(load(run / "experiment.toml").data.root) / "test"
    assert main(["predict", str(bundle), str(test / "images"), "--out", str(tmp_path / "p"), "--threads", "1"]) == 0
    assert "6 answered, 0 refused" in capsys.readouterr().out
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert main(["predict", str(bundle), str(tmp_path / "bad.png"), "--out", str(tmp_path / "q")]) == 1
    assert main(["evaluate", str(bundle), "--data", str(test), "--out", str(tmp_path / "e")]) == 0
    assert (tmp_path / "e" / "report.png").is_file()


def test_a_wrong_command_line_exits_2_and_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--foo"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("Usage: leakdet-tf doctor")
    assert lines[-1].startswith("Error: No such option")


def test_synth_renders_once_and_checks_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["synth", "gas", str(tmp_path / "g"), "--train", "2", "--val", "1", "--test", "1", "--size", "64", "64"]
    assert main(arguments) == 0
    assert "4 pictures rendered" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "were there already" in capsys.readouterr().out
    assert "seed" in refused(capsys, *arguments, "--seed", "5")
    assert "gas" in refused(capsys, "synth", "gass", str(tmp_path / "h"))
    none = ["--train", "0", "--val", "0", "--test", "0"]
    told = refused(capsys, "synth", "gas", str(tmp_path / "none"), *none)
    assert told.rstrip().endswith("none: no picture is asked for; give train, val or test a count of 1 or more")
    assert not (tmp_path / "none").exists()


HEAVY = "{'tensorflow', 'keras', 'numpy', 'pydantic', 'rich', 'matplotlib', 'cv2', 'PIL'}"


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; from leakdet_tf.cli import main; main(['--help']); print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_fit_without_the_train_extra_prints_the_line_to_type(tmp_path: Path) -> None:
    """A finder that hides the packages of [train] stands for an environment without them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'tomli_w'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    for command in (["fit", EXPERIMENT], ["export", "runs/x"], ["evaluate", "runs/x"], ["synth", "gas", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "leakdet_tf.cli", *command],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "pip install 'leakdet_tf[train]'" in done.stderr


def test_predict_on_a_bundle_needs_the_base_install_only(bundle: Path, run: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'tomli_w'):\n"
        "    sys.modules[name] = None\n"
        "from leakdet_tf.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["predict", str(bundle), str(run / "examples.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "predictions.csv").is_file()
