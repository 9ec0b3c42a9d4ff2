"""Whether the background of `synth leak` gives the label away: a ResNet18 learns from pictures without their leak.

    python benchmarks/leak_background.py [--pictures 1200] [--size 64] [--epochs 10]

Each picture is drawn again from its seed without its leak, which leaves every pixel outside the leak as it was
(tested), and keeps the label that it had. What a classifier makes of these it has from the background. The same network
on the pictures with their leaks stands beside it, so that chance is not a network that learns nothing. Prints
accuracies on a test part with their Wilson intervals, and the share of the most frequent label.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from leakdet_tf.analysis.classify.scores import load_scores
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run.data import make_folder
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import MANIFEST
from leakdet_tf.synth.leak import generator as leak
from leakdet_tf.training.progress import track

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "leak_rendered.toml"
SHARES = {"train": 0.6, "val": 0.1, "test": 0.3}


def dry(wet: Path, place: Path, request: Request) -> None:
    """The same folder with every leak left out, and the labels as they were."""
    shutil.copytree(wet, place, ignore=shutil.ignore_patterns(MANIFEST, "masks"))
    jobs = request.jobs()
    for job in track(jobs, "leaving leaks out", len(jobs)):
        picture = leak.finish(job.seed, leak.compose(job.seed, request.size, leak=False)).image
        Image.fromarray(picture).save(place / job.split / "images" / job.name)


def main() -> int:
    """Measure and print; the exit status says whether the background is at chance and the leaks are not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    counts = {name: round(share * asked.pictures) for name, share in SHARES.items()}
    size = f"[{asked.size}, {asked.size}]"
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        request = Request("leak", counts, (asked.size, asked.size), 17)
        make_folder(home / "with", request)
        dry(home / "with", home / "without", request)
        (home / "with" / MANIFEST).unlink()  # else it would be compared with what the experiment asks for
        bounds = {}
        for name in ("with", "without"):
            settings = [f"data.root={home / name}", f"data.inputs.image.size={size}", f"runs={home / 'runs'}"]
            settings += [
                f"name={name}",
                f"train.epochs={asked.epochs}",
                "export.formats=[]",
                "evaluate.calibrate=false",
            ]
            done = fit(str(EXPERIMENT), settings, log=lambda line: None)
            bounds[name] = _told(name, done.folder)
            answers = load_scores(done.folder / "scores.npz")
    chance = float(answers.truth.mean(axis=0).max())
    print(f"most frequent label: {chance:.3f} of {len(answers.ids)} test pictures")
    return 0 if bounds["without"][0] <= chance < bounds["with"][0] else 1


def _told(name: str, run: Path) -> tuple[float, float]:
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["accuracy_wilson"]
    print(f"{name} leaks: accuracy {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    return found["low"], found["high"]


if __name__ == "__main__":
    sys.exit(main())
