"""``leakdet-tf predict``: answers for pictures, as overlays, masks and a CSV line each. Runs on the base install."""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.core.files import whole_file
from leakdet_tf.core.images import SUFFIXES
from leakdet_tf.core.tasks import task_of
from leakdet_tf.core.tasks.protocol import Task
from leakdet_tf.jobs.run.notebook import shown
from leakdet_tf.jobs.run.partners import pair_pictures
from leakdet_tf.jobs.run.runs import Log, open_model, say

_SHOWN = 8  # lines and overlays in a notebook


@dataclass(frozen=True)
class Predicted:
    """How many pictures were answered, how many could not be read, and where the answers are. A notebook shows some."""

    answered: int
    refused: int
    table: Path

    def _repr_html_(self) -> str:
        with self.table.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        overlays = [Path(row[head.index("overlay")]) for row in rows[:_SHOWN]]
        title = f"{self.table}: {self.answered} answered, {self.refused} refused"
        return shown(title, head, rows[:_SHOWN], overlays)


def predict(
    model: str | Path,
    sources: str | Path | Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    threads: int | None = None,
    trusted: str | None = None,
    inputs: Mapping[str, str | Path] | None = None,
    log: Log = say,
) -> Predicted:
    """Answer every picture and write ``<out>/predictions.csv``, ``overlays/`` and, to segment, ``masks/``; to detect,
    ``boxes.csv`` with a line for each box.

    Args:
        model: a run's folder or a bundle's.
        sources: pictures, folders (searched through) and patterns such as ``frames/*.jpg``; of a model with several
            inputs the first one's.
        out: folder for the answers.
        threads: CPU threads of an exported model.
        trusted: the public key, in PEM, that must have signed the bundle; None takes any model.
        inputs: folders of other inputs' pictures; see :func:`~leakdet_tf.jobs.run.partners.pair_pictures`.
        log: takes lines for the user; a picture that cannot be read gets one, and the rest go on.

    Raises:
        DataError: nothing matches a source, or the answers cannot be written.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    pictures = find_pictures([str(one) for one in given])
    opened = open_model(model, threads=threads, trusted=trusted)
    if opened.note:
        log(opened.note)
    predictor, folder = opened.predictor, Path(out)
    frames = pair_pictures(pictures, opened, inputs, log=log)
    names = out_names(pictures)
    table = folder / "predictions.csv"
    refused = len(pictures) - len(frames)
    task = task_of(predictor.contract)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            writer = _table(files, table, columns(predictor.contract))
            things = None
            if task.THINGS is not None:
                things = _table(files, folder / f"{task.THINGS.name}.csv", ["picture", *task.THINGS.columns])
            for frame in frames:
                path = frame[predictor.contract.primary]
                try:
                    image = predictor.load(frame)
                except ImageError as error:
                    log(str(error))
                    refused += 1
                    continue
                prediction = predictor.predict(image)
                drawn = {
                    "overlay": predictor.draw(image, prediction),
                    **{name: take(prediction) for name, take in task.IMAGES.items()},
                }
                line = row(path, prediction, task)
                for name, pixels in drawn.items():
                    line[name] = str(folder / f"{name}s" / f"{names[path]}.png")
                    _write_png(Path(line[name]), pixels)
                if task.THINGS is not None and things is not None:
                    things.writerows({"picture": str(path)} | thing for thing in task.THINGS.lines(prediction))
                writer.writerow(line)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error})", remedy="free disk space or change --out"
        ) from error
    return Predicted(len(pictures) - refused, refused, table)


def find_pictures(sources: Sequence[str]) -> list[Path]:
    """Every picture that the sources name, sorted, each once.

    Raises:
        DataError: a source names nothing.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        elif path.is_file():
            inside = [path]
        else:
            inside = sorted(Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not inside:
            what = "holds no picture" if path.is_dir() else "no such picture, folder or pattern"
            raise DataError(f"{source}: {what}", remedy=f"pictures end in {', '.join(SUFFIXES)}")
        found |= {path.resolve(): path for path in inside}
    return list(found.values())


def out_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """A name without suffix for each picture's answers, never the same twice.

    The stem where stems differ, else the path below the folder that all pictures share; where two files differ by
    suffix alone, the suffix is kept as ``two_jpg``.
    """
    stems = {path: path.stem for path in pictures}
    if len(set(stems.values())) == len(pictures):
        return stems
    shared = Path(os.path.commonpath([path.resolve().parent for path in pictures]))
    names = {path: path.resolve().relative_to(shared).with_suffix("").as_posix() for path in pictures}
    times = Counter(names.values())
    return {path: name if times[name] == 1 else f"{name}_{path.suffix[1:]}" for path, name in names.items()}


def _table(files: ExitStack, path: Path, columns: Sequence[str]) -> csv.DictWriter[str]:
    file = files.enter_context(path.open("w", newline="", encoding="utf-8", buffering=1))
    writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    return writer


def columns(contract: Contract) -> list[str]:
    """The columns of ``predictions.csv``."""
    task = task_of(contract)
    own = [*task.columns(contract.class_names), "model", "total_ms", "invoke_ms", *task.IMAGES]
    return ["picture", "width", "height", *own, "overlay"]


def row(path: Path, prediction: Any, task: Task) -> dict[str, Any]:
    """One line of ``predictions.csv``, but for the files that go with it."""
    height, width = prediction.size
    times = {"total_ms": f"{prediction.total_ms:.2f}", "invoke_ms": f"{prediction.invoke_ms:.2f}"}
    line = {"picture": str(path), "width": width, "height": height}
    return line | task.row(prediction) | {"model": prediction.model} | times


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
