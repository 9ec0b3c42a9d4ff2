"""Checkpoints: all that training needs to go on as if it had never stopped, after an epoch or within one.

``checkpoints/epoch-0007/``, or ``epoch-0007-step-000120/`` after so many steps of the next, holds ``weights.npz`` and
``optimizer.npz`` (plain arrays, no pickle), ``state.json`` and ``SHA256SUMS`` over the three. It is written beside its
place, flushed and renamed, so it is there whole or not at all.
The order of pictures and every random change follow from (seed, epoch, index) and need no place in it; a dropout
layer's random state is among the weights.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from leakdet_tf.core.errors import TrainingError
from leakdet_tf.core.files import sha256_file, sync_folder

FORMAT = 1
KEPT = 3
"""How many of the newest checkpoints stay when nothing else is said."""
SUMS = "SHA256SUMS"
AS_BEGUN = "resume with the version of the code that the run began with, or train again"
"""What to do about a checkpoint that does not fit the model or the task."""
_STATE, _WEIGHTS, _OPTIMIZER = "state.json", "weights.npz", "optimizer.npz"
_FILES = (_STATE, _WEIGHTS, _OPTIMIZER)
_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
_COUNTED = re.compile(r"_\d+(?=[_/]|$)")
Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class State:
    """Where training stands.

    ``epoch``: epochs completed, of all stages. ``step``: steps of the next one that are done, and ``sums`` what Keras
    has added up in them: each variable's values, first its mean loss' sum and count. ``stage``: number of the stage
    from 1; ``begun``: epochs before it, so that ``epoch - begun`` are within it; ``stopped_early``: its patience ended.
    ``best_value``, ``best_loss``, ``best_epoch`` and ``best_sha256`` (of the weights in ``best.keras``) are
    :class:`~.callbacks.Keeper`'s. ``rows``: those of ``history.csv``. ``identity``: digests of what the run was started
    with, by name. ``first_loss`` and ``above`` are :class:`~.faults.Explosion`'s.
    """

    epoch: int
    stage: int
    begun: int
    stopped_early: bool
    best_value: float
    best_loss: float
    best_epoch: int
    best_sha256: str
    rows: Sequence[Mapping[str, float]]
    identity: Mapping[str, str]
    first_loss: float | None = None
    above: int = 0
    step: int = 0
    sums: Sequence[Any] = field(default_factory=list)

    @property
    def mean_loss(self) -> float:
        """Of the steps that are done, in float32 as Keras has it; 0 when none is."""
        return float(np.float32(self.sums[0]) / np.float32(self.sums[1])) if self.sums else 0.0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where training stands, in memory: all that a checkpoint holds."""

    state: State
    weights: Arrays
    optimizer: Arrays
    names: Mapping[str, Sequence[str]]

    @property
    def place(self) -> str:
        """What messages call it."""
        return _named(self.state)

    def restore(self, model: Any, optimizer: Any = None) -> None:
        """Put the weights into the served model and, if given, the variables into the optimizer.

        Raises:
            TrainingError: they are not of the same number, names, shapes and dtypes.
        """
        pairs = [(self.weights, model.variables, _WEIGHTS)]
        if optimizer is not None:
            pairs.append((self.optimizer, optimizer.variables, _OPTIMIZER))
        for arrays, variables, file in pairs:
            if [_kind(v) for v in variables] != [str(n) for n in self.names[file]]:
                raise TrainingError(
                    f"{self.place}/{file}: is of another model or optimizer than the experiment's",
                    remedy=AS_BEGUN,
                )
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)


@dataclass(frozen=True, eq=False)
class Checkpoint(Snapshot):
    """A checkpoint that was read and whose digests are right: what training continues from."""

    folder: Path

    @property
    def place(self) -> str:
        """Its folder."""
        return str(self.folder)


def take(state: State, model: Any, optimizer: Any) -> Snapshot:
    """Copy what a checkpoint holds.

    Args:
        state: where training stands.
        model: the served model; all its variables are kept, a layer's random state too.
        optimizer: the one that trains it, with its count of steps.
    """
    parts = {_WEIGHTS: model.variables, _OPTIMIZER: optimizer.variables}
    weights, steps = ([copied(v) for v in variables] for variables in parts.values())
    return Snapshot(state, weights, steps, {file: [_kind(v) for v in parts[file]] for file in parts})


def copied(variable: Any) -> npt.NDArray[Any]:
    """A variable's value in memory of its own: some backends' arrays follow the variable."""
    return np.array(keras.ops.convert_to_numpy(variable))


def write(folder: Path, snapshot: Snapshot, *, keep: int = KEPT) -> Path:
    """Write a checkpoint into ``folder``, whole or not at all, and remove old ones.

    The ``keep`` newest stay, and those of the epochs that they call the best, so that ``best.keras`` can be made again.
    A later one is damaged, for training went on from before it: it goes, and counts for nothing. ``folder`` is
    the run's ``checkpoints``.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints stay.
    """
    state = snapshot.state
    place = folder / _named(state)
    building = folder / f".{place.name}.{os.getpid()}"
    try:
        building.mkdir(parents=True)
        for file, arrays in ((_WEIGHTS, snapshot.weights), (_OPTIMIZER, snapshot.optimizer)):
            named: dict[str, Any] = {f"{i:05d}": array for i, array in enumerate(arrays)}
            np.savez(building / file, **named)
        said = {"format": FORMAT, "names": snapshot.names, **vars(state), "rows": [_plain(row) for row in state.rows]}
        (building / _STATE).write_text(json.dumps(_plain(said), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (building / SUMS).write_text(_sums(building), encoding="ascii")
        for file in (*_FILES, SUMS):
            with (building / file).open("rb+") as handle:
                os.fsync(handle.fileno())
        sync_folder(building)
        _discard(place)  # one of the same moment that was damaged
        building.rename(place)
        sync_folder(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    there = found(folder)
    kept = [one for one in there if _moment(one) <= (state.epoch, state.step)][:keep]
    bests = {_best_of(one) for one in kept}
    for one in there:
        if one not in kept and one.name not in bests:
            _discard(one)
    return place


def _named(state: State) -> str:
    return _of_epoch(state.epoch) + (f"-step-{state.step:06d}" if state.step else "")


def _of_epoch(epoch: int) -> str:
    return f"epoch-{epoch:04d}"


def _moment(place: Path) -> tuple[int, int]:
    # Epochs completed, and steps of the next.
    said = _NAME.fullmatch(place.name)
    assert said is not None
    return int(said[1]), int(said[2] or 0)


def _best_of(place: Path) -> str:
    # The checkpoint of the epoch that this one calls the best; of a damaged one nothing.
    try:
        return _of_epoch(int(json.loads((place / _STATE).read_text(encoding="utf-8"))["best_epoch"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def found(folder: Path) -> list[Path]:
    """The checkpoints in a run's ``checkpoints``, newest first, whatever their condition."""
    if not folder.is_dir():
        return []
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name)),
        key=_moment,
        reverse=True,
    )


def clean(folder: Path) -> None:
    """Remove what a killed process left half written or half removed, here and in the run's folder above.

    Nobody else may be at work in the run.
    """
    for path in folder.glob(".epoch-*"):
        shutil.rmtree(path)
    for path in (*folder.glob(".[0-9]*.*"), *folder.parent.glob(".[0-9]*.*")):
        path.unlink()


def newest(
    folder: Path, *, log: Callable[[str], None], lacks: Callable[[Checkpoint], str] = lambda _: ""
) -> Checkpoint | None:
    """Read the newest checkpoint whose digests are right and that lacks nothing; None when there are none at all.

    Every byte is hashed before any parser sees it. Those that are passed over are named through ``log``.

    Args:
        folder: the run's ``checkpoints``.
        log: takes a line for each.
        lacks: says what else a checkpoint needs and is not there, or nothing.

    Raises:
        TrainingError: there are some, but all are damaged, or one is of another version of the format.
    """
    faults = []
    for place in found(folder):
        fault = _fault(place)
        if not fault:
            one = _read(place)
            fault = lacks(one)
            if not fault:
                return one
        faults.append(f"{place.name}: {fault}")
        log(f"checkpoint {faults[-1]}; passed over")
    if faults:
        raise TrainingError(
            f"{folder}: no checkpoint can be used ({'; '.join(faults)})",
            remedy="restore one from a copy, or train again in a new run",
        )
    return None


def of_epoch(folder: Path, epoch: int) -> Checkpoint | None:
    """The checkpoint of an epoch's end; None when it is not there or its digests are wrong."""
    place = folder / _of_epoch(epoch)
    return _read(place) if place.is_dir() and not _fault(place) else None


def _fault(place: Path) -> str:
    # What is wrong with a checkpoint's files, or nothing.
    try:
        if (place / SUMS).read_bytes() == _sums(place).encode():
            return ""
        listed = (place / SUMS).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read ({error.strerror})"
    changed = [file for file in _FILES if f"{sha256_file(place / file)}  {file}" not in listed]
    return f"{' and '.join(changed) or 'a file'} not as {SUMS} says"


def _sums(place: Path) -> str:
    return "".join(f"{sha256_file(place / file)}  {file}\n" for file in _FILES)


def _read(place: Path) -> Checkpoint:
    said = json.loads((place / _STATE).read_text(encoding="utf-8"))
    if said.pop("format") != FORMAT:
        raise TrainingError(f"{place}: is of another format", remedy=f"this version reads format {FORMAT}")
    names = said.pop("names")
    for key in ("best_value", "best_loss"):
        said[key] = float(said[key])
    rows = [{key: float(v) if isinstance(v, str) else v for key, v in row.items()} for row in said.pop("rows")]
    arrays = []
    for file in (_WEIGHTS, _OPTIMIZER):
        with np.load(place / file, allow_pickle=False) as archive:
            arrays.append([archive[key] for key in sorted(archive.files)])
    return Checkpoint(State(**said, rows=rows), arrays[0], arrays[1], names, place)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    # NaN and infinity are no JSON: they stand as text.
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _kind(variable: Any) -> str:
    # Keras counts layers without a name over a whole process: the counts say nothing.
    return f"{_COUNTED.sub('', variable.path)} {tuple(variable.shape)} {np.dtype(variable.dtype).name}"


def _discard(place: Path) -> None:
    # Renamed first: what is half removed must not look like a damaged checkpoint.
    if place.exists():
        away = place.with_name(f".{place.name}.{os.getpid()}.old")
        place.rename(away)
        shutil.rmtree(away)
