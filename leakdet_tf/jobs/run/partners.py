"""What belongs to a picture of the first input of a model that takes several together. Runs on the base install."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, did_you_mean
from leakdet_tf.core.images import SUFFIXES
from leakdet_tf.jobs.run.runs import Log, Opened

Folders = Mapping[str, str]


def pair_pictures(
    pictures: Sequence[Path], opened: Opened, given: Mapping[str, str | Path] | None = None, *, log: Log
) -> list[dict[str, Path]]:
    """Each picture by the name of the first input, with the pictures of the same name for the others.

    Args:
        pictures: of the first input.
        opened: the model. Where it lies in its run, the experiment file names the folder of each input: the partner of
            ``visual/a.png`` is ``thermal/a.tif``.
        given: folders by the names of inputs whose pictures lie elsewhere, with the same name or path below them.
        log: takes a line for each picture that lacks a partner, which is left out.

    Raises:
        ConfigError: ``given`` names no such input, or the first.
        DataError: it is not known where partners are, two files may be one, or no picture has all of its partners.
    """
    contract = opened.predictor.contract
    others = [name for name in contract.inputs if name != contract.primary]
    told = _told(given or {}, contract.primary, others)
    layouts = _layouts(opened) if set(others) - set(told) else []
    listed: dict[Path, dict[str, list[Path]]] = {}
    found = []
    for path in pictures:
        frame, lacking = {contract.primary: path}, ""
        for name in others:
            places = _below(told[name], path) if name in told else _beside(path, layouts, contract, name)
            partners = next(filter(None, (_files(place, listed) for place in places)), [])
            if len(partners) > 1:
                raise DataError(f"{partners[1]}: {partners[0].name} has the same stem", remedy="rename or remove one")
            if not partners:
                lacking = f"{path}: has no partner in {told.get(name) or places[0].parent} ({name})"
                break
            frame[name] = partners[0]
        if lacking:
            log(lacking)
        else:
            found.append(frame)
    if pictures and not found:
        raise DataError(
            f"none of {len(pictures)} pictures has a partner for each of {', '.join(others)}",
            remedy="pictures taken together need equal stems; --input NAME=FOLDER says where they are",
        )
    return found


def _told(given: Mapping[str, str | Path], primary: str, others: Sequence[str]) -> dict[str, Path]:
    for name, folder in given.items():
        text = f"{name}={folder}"
        if name == primary:
            raise ConfigError(f"--input {text}: {name} is the first input", remedy="give its pictures as PICTURE")
        if name not in others:
            remedy = did_you_mean(name, others) if others else "leave it out: the model takes one picture"
            raise ConfigError(f"--input {text}: the model has no such input", remedy=remedy)
        if not Path(folder).is_dir():
            raise DataError(f"--input {text}: no such folder")
    return {name: Path(folder) for name, folder in given.items()}


def _layouts(opened: Opened) -> list[Folders]:
    # Of each source of the run's experiment, the folders of its inputs' pictures.
    if opened.experiment is None:
        return []
    from leakdet_tf.config.loading import load

    data = load(opened.experiment).data
    return [{name: one.folders.get(name, item.folder) for name, item in data.inputs.items()} for one in data.sources]


def _below(folder: Path, path: Path) -> list[Path]:
    # Where a partner may be, without suffix: as much of the picture's path as there is below the folder counts.
    parts = path.absolute().with_suffix("").parts[1:]
    return [folder.joinpath(*parts[start:]) for start in range(len(parts))]


def _beside(path: Path, layouts: Sequence[Folders], contract: Contract, name: str) -> list[Path]:
    parts, found = path.absolute().with_suffix("").parts, []
    for layout in layouts:
        own, other = Path(layout[contract.primary]).parts, layout[name]
        starts = [i for i in range(len(parts) - len(own)) if parts[i : i + len(own)] == own]
        if starts and own != Path(other).parts:
            found.append(Path(*parts[: starts[-1]], other, *parts[starts[-1] + len(own) :]))
    if not found:
        inputs = " and ".join(contract.inputs)
        where = " or ".join(dict.fromkeys(f"'{one[contract.primary]}'" for one in layouts))
        why = f"it lies in no folder {where} of the experiment" if where else "the bundle is outside its run"
        raise DataError(
            f"{path}: the model takes {inputs} together, and where {name} is cannot be told: {why}",
            remedy=f"add --input {name}=FOLDER",
        )
    return found


def _files(place: Path, listed: dict[Path, dict[str, list[Path]]]) -> list[Path]:
    folder = place.parent
    if folder not in listed:
        listed[folder] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in SUFFIXES and path.is_file():
                listed[folder].setdefault(path.stem, []).append(path)
    return listed[folder].get(place.name, [])
