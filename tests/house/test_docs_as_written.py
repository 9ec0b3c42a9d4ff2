"""The pages of docs/, run as they stand."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leakdet_tf.edge import Predictor

ROOT = Path(__file__).parents[2]


def shell(line: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_extend_a_factory_runs_as_written(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "extend-a-factory.md").read_text(encoding="utf-8")
    script, ran = "", 0
    for language, name, block in re.findall(r"```(\w+)(?: file=(\S+))?\n(.*?)```", text, re.S):
        if name:
            (tmp_path / name).write_text(block)
        elif language == "python":
            script += block
        elif language == "sh":
            out = shell(block, tmp_path)
            assert "tflite_float32" in out
            ran += 1
    (tmp_path / "script.py").write_text(script)
    shell("PYTHONPATH=. python script.py", tmp_path)
    assert ran == 2
    bundles = sorted(tmp_path.glob("runs/mine/*/export/tflite_float32"))
    assert len(bundles) == 2
    for bundle in bundles:
        assert Predictor(bundle).contract.class_names == ("background", "gas", "machine")


def test_segment_gas_leaks_commands_run(run: Path, bundle: Path, tmp_path: Path) -> None:
    """The page's commands with its placeholders filled in; the long training is the session's small run."""
    from leakdet_tf.config.loading import load

    text = (ROOT / "docs" / "segment-gas-leaks.md").read_text(encoding="utf-8")
    images = Path(load(run / "experiment.toml").data.root) / "test"
    shutil.copytree(images / "images", tmp_path / "walk1")
    (tmp_path / "frames").mkdir()
    from PIL import Image

    with Image.open(next(iter(sorted((tmp_path / "walk1").iterdir())))) as picture:
        picture.convert("RGB").save(tmp_path / "frames" / "a.jpg")
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    ran = 0
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            if line.startswith(("leakdet-tf fit", "pip ")) or "watch.py" in line:
                continue
            shell(line.replace("RUN", str(copy)).replace("DIR", str(images)), tmp_path)
            ran += 1
    assert ran == 11
    assert len((tmp_path / "predictions" / "predictions.csv").read_text().splitlines()) == 1 + 1 + 6
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "program.py").write_text(program.replace("BUNDLE", str(bundle)).replace("frame.jpg", "frames/a.jpg"))
    assert "(64, 64)" in shell("python program.py", tmp_path)


@pytest.mark.slow
def test_classify_leaks_commands_run(tmp_path: Path) -> None:
    """The page's commands in their order, with its placeholders filled in; the trainings are small."""
    text = (ROOT / "docs" / "classify-leaks.md").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    small = "--set data.inputs.image.size=[32,32] --set 'model.encoder_options={width=4}' --set train.epochs=2"
    rendered = "--set 'data.synth.counts={train=24,val=12,test=12}' --set data.synth.size=[32,32]"
    photographs = tmp_path / "photographs"
    run, ran = Path(), 0
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            line = line.replace("RUN", str(run)).replace("=DIR", f"={photographs}").replace("STRANGE", "frames")
            if line == "leakdet-tf fit experiments/leak_rendered.toml":
                shell(f"{line} {small} {rendered}", tmp_path)
                (run,) = (tmp_path / "runs" / "leak_rendered").iterdir()
                _by_class(tmp_path / "data" / "leak_rendered_all", photographs)
                shutil.copytree(photographs / "no_leak", tmp_path / "frames")
            elif line.startswith("leakdet-tf fit"):
                shell(f"{line} {small} --set export.formats=[]", tmp_path)
            else:
                shell(line, tmp_path)
            ran += 1
    assert ran == 13
    for name in (
        "split-real.json",
        "matrix/matrix.md",
        "explained/explain.csv",
        "explained_truth/explain.csv",
        "data/leaks_more_filtered/planted.json",
    ):
        assert (tmp_path / name).is_file(), name
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    frame = next(iter(sorted((tmp_path / "frames").iterdir())))
    program = program.replace("BUNDLE", str(run / "export" / "tflite_float32")).replace("frame.jpg", str(frame))
    (tmp_path / "program.py").write_text(program)
    assert "water_leak" in shell("python program.py", tmp_path)


@pytest.mark.slow
def test_detect_hot_spots_commands_run(tmp_path: Path) -> None:
    """The page's commands in their order, with its placeholders filled in; the trainings are small."""
    text = (ROOT / "docs" / "detect-hot-spots.md").read_text(encoding="utf-8")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    small = "--set model.implementation=native --set data.inputs.image.size=[32,32] --set train.epochs=1"
    small += " --set 'model.channels=[8,8,8,8]' --set export.max_changed=1"
    rendered = "--set 'data.synth.counts={train=16,val=8,test=8}' --set data.synth.size=[64,64]"
    own, run, ran = tmp_path / "own", Path(), 0
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.splitlines():
            line = line.replace("RUN", str(run)).replace("=DIR", f"={own}").replace(" DIR ", f" {own} ")
            if line.startswith("pip"):
                continue
            if line == "leakdet-tf fit experiments/hotspot_yolov8.toml":
                shell(f"{line} {small} {rendered}", tmp_path)
                (run,) = (tmp_path / "runs" / "hotspot_yolov8").iterdir()
                place = tmp_path / "data" / "hotspot_rendered"
                shell(
                    f"leakdet-tf data convert {place / 'train'} {own} --from coco --to yolo --classes hotspot,diode",
                    tmp_path,
                )
                names = sorted(path.name for path in (own / "images").iterdir())
                parts = ["train", "train", "val", "test"]
                split = {name: parts[number % 4] for number, name in enumerate(names)}
                (own / "split_grouped.json").write_text(json.dumps({"split": split}))
            elif line.startswith("leakdet-tf fit"):
                shell(f"{line} {small} --set export.formats=[]", tmp_path)
            else:
                shell(line.replace("hotspot_yolov8.toml --set", f"hotspot_yolov8.toml {rendered} --set"), tmp_path)
            ran += 1
    assert ran == 9
    for name in ("coco_pictures/coco.json", "shown.png"):
        assert (tmp_path / name).exists(), name
    assert (run / "export" / "onnx_float32" / "model.onnx").is_file()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    frame = tmp_path / "data" / "hotspot_rendered" / "test" / "images" / "hotspot_00001.png"
    bundle = run / "export" / "onnx_float32"
    program = program.replace("BUNDLE", str(bundle)).replace("frame.jpg", str(frame))
    (tmp_path / "program.py").write_text(program)
    # so little trained, a model finds something only where next to nothing is asked of a score
    shell(f"leakdet-tf calibrate {run} --threshold 0.001", tmp_path)
    shell(f"leakdet-tf export {run} --set 'export.formats=[\"onnx_float32\"]'", tmp_path)
    said, answer = shell("python program.py", tmp_path).splitlines(), Predictor(bundle).predict(frame)
    assert len(said) == len(answer.names) > 0
    for line, name, score, box in zip(said, answer.names, answer.scores, answer.boxes, strict=True):
        first, second, edges = line.split(maxsplit=2)
        assert (first, float(second)) == (name, round(float(score), 2))
        assert [float(edge) for edge in edges.strip("[] ").split()] == pytest.approx(box.tolist(), abs=1e-3)


def _by_class(rendered: Path, folder: Path) -> None:
    """A rendered folder's pictures in a folder for each label, without what marks them as rendered."""
    for table in rendered.glob("*/labels.csv"):
        for row in csv.DictReader(table.read_text().splitlines()):
            place = folder / row["label"] / f"{table.parent.name}_{Path(row['file']).name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(table.parent / row["file"], place)


@pytest.mark.slow
def test_the_page_s_training_runs_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    out = shell("leakdet-tf fit experiments/gas_unet.toml", tmp_path)
    assert "next:" in out
    following = [line.strip() for line in out.splitlines() if line.startswith("  leakdet-tf ")]
    assert len(following) == 2
    for line in following:
        shell(line, tmp_path)
    (metrics,) = tmp_path.glob("runs/gas_unet/*/metrics.json")
    assert json.loads(metrics.read_text())["metrics"]["iou"]["machine"]["value"] > 0.5


def test_the_device_app_answers_a_folder(bundle: Path, run: Path, tmp_path: Path) -> None:
    from leakdet_tf.config.loading import load

    source = Path(load(run / "experiment.toml").data.root) / "test" / "images"
    frames = Path(shutil.copytree(source, tmp_path / "frames"))
    (frames / "zz_bad.png").write_bytes(b"bad")
    out = shell(f"python {ROOT / 'tflite' / 'watch.py'} {bundle} {frames} --out {tmp_path / 'answers'}", tmp_path)
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 7
    assert "zz_bad.png" in lines[-1]["error"]
    for line in lines[:-1]:
        assert sum(line["share"].values()) == pytest.approx(1, abs=1e-5)
        assert Path(line["overlay"]).stat().st_size > 0
    done = subprocess.run(
        [sys.executable, str(ROOT / "tflite" / "watch.py"), str(frames), "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
