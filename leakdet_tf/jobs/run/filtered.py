"""The folder that ``synth filter`` makes: what was kept, in the layout it came in, and an account of the rest."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.classify.figures import Shown, sheet
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.files import left_by_the_dead, own_mark, sync_folder, write_json, write_text
from leakdet_tf.core.images import decode
from leakdet_tf.core.tasks import classify
from leakdet_tf.synth.folder.coco import coco_text
from leakdet_tf.synth.folder.writer import BOXES, LABELS, MANIFEST

KEPT, DROPPED, PLANTED = "kept.csv", "dropped.csv", "planted.json"
ON_A_SHEET, SHEETS = 48, 10
"""Pictures on a contact sheet of what was dropped, and the most sheets."""
Scores = npt.NDArray[np.float32]

_UNLINKED = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True, eq=False)
class Judged:
    """A rendered picture and what the model says of it.

    ``file`` is below the rendered folder; ``label`` as its table has it. ``wanted``: the classes that the label means.
    ``scores``: float32 (C,), calibrated; None where ``fault`` says why the picture cannot be judged.
    """

    split: str
    key: str
    file: str
    label: str
    wanted: tuple[int, ...] = ()
    scores: Scores | None = None
    fault: str = ""


def chance(one: Judged, wanted: Sequence[int] | None = None) -> float:
    """The probability of a picture's label (or of other classes): of several the least, of none that no class is there.

    NaN for a picture that was not judged.
    """
    if one.scores is None:
        return float("nan")
    chosen = one.wanted if wanted is None else wanted
    return float(one.scores[list(chosen)].min() if chosen else 1 - one.scores.max())


def saw(one: Judged, contract: Contract) -> tuple[str, float]:
    """What the model sees and the largest score: the likeliest class, or with sigmoid all of them from one half on."""
    if one.scores is None:
        return "", float("nan")
    names = contract.class_names
    if contract.activation == "sigmoid":
        there = [name for name, score in zip(names, one.scores, strict=True) if score >= classify.PRESENT]
        return ";".join(there) or "none", float(one.scores.max())
    return names[int(one.scores.argmax())], float(one.scores.max())


def reason(one: Judged) -> str:
    """Why a picture that is not kept is not."""
    return one.fault or "unlikely"


def table_of(folder: Path) -> list[list[str]]:
    """The cells of a split's table, its head first, blank lines left out."""
    try:
        text = (folder / LABELS).read_text(encoding="utf-8-sig")
        return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{folder / LABELS}: is no table of UTF-8 text", remedy="render the folder again") from error


def prepare(target: Path, root: Path) -> None:
    """Refuse a place that holds something, or lies in the folder that is filtered.

    Raises:
        ConfigError: it does.
    """
    if target.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--out {target}: lies in {root}, which is never changed", remedy="choose a place beside it")
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise ConfigError(f"--out {target}: holds something already", remedy="remove it, or choose another")


def write(
    target: Path,
    root: Path,
    judged: Sequence[Judged],
    chances: Scores,
    kept: npt.NDArray[np.bool_],
    contract: Contract,
    *,
    manifest: dict[str, Any],
    threshold: float,
    planted: dict[str, Any] | None,
) -> None:
    """Make the folder: all of it or nothing.

    It holds, split by split, the kept pictures and what has their stem in the folders beside theirs (masks), as hard
    links where the file system makes them and else as copies; each split's table with their rows; the manifest with
    their entries and one named ``filter``; and the accounts ``kept.csv``, ``dropped.csv``, ``dropped-01.png`` and on
    (the least likely first) and, if there is one, ``planted.json``.

    Args:
        target: the folder to make.
        root: the rendered folder.
        judged: its pictures.
        chances: float32 (N,), the probability of each one's label; NaN where it was not judged.
        kept: bool (N,), which of them are kept.
        contract: the model's.
        manifest: the rendered folder's.
        threshold: what a picture needed to be kept.
        planted: the report on planted labels.

    Raises:
        DataError: the manifest is none of rendered pictures, or the disk cannot be written.
    """
    files = {one.file for one, inside in zip(judged, kept, strict=True) if inside}
    account = _account(judged, kept, contract, threshold)
    try:
        entries = [entry for entry in manifest["pictures"] if entry["file"] in files]
    except (KeyError, TypeError) as error:
        raise DataError(f"{root / MANIFEST}: not a manifest of rendered pictures ({error!r})") from error
    with _whole(target) as folder:
        for split in [name for name in SPLITS if (root / name).is_dir()]:
            own = {one.key: one.file for one in judged if one.split == split and one.file in files}
            _fill(folder / split, root / split, [Path(file).relative_to(split) for file in own.values()])
            _write_table(folder / split, root / split, set(own))
            if manifest.get("boxes") is not None:
                there = [entry for entry in entries if entry["file"].startswith(f"{split}/")]
                write_text(folder / split / BOXES, coco_text(there, manifest["classes"], manifest["size"]))
        write_json(folder / MANIFEST, manifest | {"pictures": entries, "filter": account})
        for name, chosen in ((KEPT, kept), (DROPPED, ~kept)):
            _write_account(folder / name, judged, chances, chosen, contract, reasons=name == DROPPED)
        if planted is not None:
            write_json(folder / PLANTED, planted)
        _draw(folder, root, judged, chances, kept, contract, threshold)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    # A hidden folder beside the target that takes its place at the end; any error removes it.
    place = target.resolve()
    prefix = f".{place.name}.filtering-"
    temporary = place.with_name(f"{prefix}{own_mark()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for left in left_by_the_dead(place.parent, prefix):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for inside, _, _ in os.walk(temporary):
                sync_folder(Path(inside))
            temporary.rename(place)
            sync_folder(place.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error.strerror or error})", remedy="free some space, or change --out"
        ) from error


def _fill(folder: Path, source: Path, pictures: Sequence[Path]) -> None:
    # Folders stay where they are empty too. What has a kept picture's place and stem in another folder goes with it.
    tops = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    for top in tops:
        (folder / top.name).mkdir(parents=True, exist_ok=True)
    stems = {picture.with_suffix("").parts[1:] for picture in pictures}
    homes = {picture.parts[0] for picture in pictures}
    chosen = {source / picture for picture in pictures}
    for top in [top for top in tops if top.name not in homes]:
        files = (path for path in top.rglob("*") if path.is_file())
        chosen |= {path for path in files if path.relative_to(top).with_suffix("").parts in stems}
    for path in sorted(chosen):
        _link(path, folder / path.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno not in _UNLINKED:
            raise
        shutil.copy2(source, target)
        with target.open("rb+") as file:
            os.fsync(file.fileno())


def _write_table(folder: Path, source: Path, keys: set[str]) -> None:
    if (source / LABELS).is_file():
        head, *rows = table_of(source) or [[]]
        _write_rows(folder / LABELS, [head, *(row for row in rows if _key(row[head.index("file")]) in keys)])


def _key(text: str) -> str:
    return Path(text.strip()).with_suffix("").as_posix()


def _write_account(
    path: Path,
    judged: Sequence[Judged],
    chances: Scores,
    chosen: npt.NDArray[np.bool_],
    contract: Contract,
    *,
    reasons: bool,
) -> None:
    head = ["file", "label", "probability", "saw", "saw_probability", *(["reason"] if reasons else [])]
    rows = []
    for one, own, inside in zip(judged, chances, chosen, strict=True):
        if inside:
            seen, score = saw(one, contract)
            cells = [one.file, one.label, _number(float(own)), seen, _number(score)]
            rows.append([*cells, *([reason(one)] if reasons else [])])
    _write_rows(path, [head, *rows])


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def _account(
    judged: Sequence[Judged], kept: npt.NDArray[np.bool_], contract: Contract, threshold: float
) -> dict[str, Any]:
    counts = {split: {"kept": 0, "dropped": 0} for split in dict.fromkeys(one.split for one in judged)}
    for one, inside in zip(judged, kept, strict=True):
        counts[one.split]["kept" if inside else "dropped"] += 1
    reasons = Counter(reason(one).split(":")[0] for one, inside in zip(judged, kept, strict=True) if not inside)
    return {
        "threshold": threshold,
        "model": contract.id,
        "experiment": contract.experiment,
        "weights_sha256": contract.weights_sha256,
        "counts": counts,
        "reasons": dict(reasons),
    }


def _draw(
    folder: Path,
    root: Path,
    judged: Sequence[Judged],
    chances: Scores,
    kept: npt.NDArray[np.bool_],
    contract: Contract,
    threshold: float,
) -> None:
    order = [int(i) for i in np.argsort(chances, kind="stable") if judged[i].scores is not None and not kept[i]]
    for page, start in enumerate(range(0, min(len(order), SHEETS * ON_A_SHEET), ON_A_SHEET), start=1):
        shown = []
        for i in order[start : start + ON_A_SHEET]:
            seen, score = saw(judged[i], contract)
            text = (
                Path(judged[i].file).stem,
                f"{judged[i].label or 'none'}: {chances[i]:.2f}",
                f"saw {seen} {score:.2f}",
            )
            shown.append(Shown(decode(root / judged[i].file), text, False))
        title = f"below {threshold:g}, least likely first: {start + 1} to {start + len(shown)} of {len(order)}"
        save(sheet(shown, title), folder / f"dropped-{page:02d}.png")
