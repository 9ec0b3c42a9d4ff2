"""``leakdet-tf evaluate``: the report on a run or a bundle, and with ``--matrix`` every model on every test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leakdet_tf.analysis.classify.figures import heat
from leakdet_tf.analysis.classify.matrix import Entry, report
from leakdet_tf.analysis.classify.matrix_text import lines, markdown
from leakdet_tf.analysis.classify.scores import Answers
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.data import Source
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError, DataError, ImageError, did_you_mean
from leakdet_tf.core.files import sha256_bytes, write_json, write_text
from leakdet_tf.core.images import SUFFIXES
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data.items import FOLDERS, Item, count_rendered, note_on_rendered
from leakdet_tf.data.readers import find_items, find_splits, turned_parts
from leakdet_tf.jobs.run.data import render_if_absent
from leakdet_tf.jobs.run.notebook import figure_rows, shown
from leakdet_tf.jobs.run.partners import pair_pictures
from leakdet_tf.jobs.run.parts import parts_of_run
from leakdet_tf.jobs.run.runs import Log, Opened, open_model, say
from leakdet_tf.jobs.tasks import jobs_task
from leakdet_tf.jobs.tasks.classify import answer
from leakdet_tf.jobs.tasks.protocol import Evaluation
from leakdet_tf.training.progress import track

TABLE = "labels.csv"


@dataclass(frozen=True)
class Evaluated:
    """A finished report and the files it was written to. A notebook shows its figures."""

    report: dict[str, Any]
    files: list[Path]

    def _repr_html_(self) -> str:
        where = f"{self.report.get('kind')} on {self.report.get('split')} of {self.report.get('data')}"
        return shown(where, ("figure", "value", "low", "high"), figure_rows(self.report["metrics"]), self.files)


def evaluate(
    model: str | Path,
    *,
    data: str | None = None,
    split: str = "test",
    experiment: str | Path | None = None,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    log: Log = say,
    source: str | None = None,
) -> Evaluated:
    """Measure a run or a bundle and write ``metrics.json``, ``report.png`` and ``worst.png``.

    Args:
        model: a run's folder or a bundle's.
        data: a folder to measure on instead of the experiment's: with images and masks in it, or with splits.
        split: ``train``, ``val`` or ``test``.
        experiment: experiment file that says where the data are; the run's own when None.
        overrides: ``table.key=value`` for that file.
        out: where to write; when None the model's folder, under ``evaluation`` unless it is the run's own test split.
        log: takes lines for the user.
        source: one of the experiment's sources: only its pictures, or the one whose mask values ``data`` has.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: unknown", remedy=did_you_mean(split, SPLITS))
    opened = open_model(model)
    if opened.note:
        log(opened.note)
    described = experiment or opened.experiment
    if described is None:
        raise ConfigError(
            f"{model}: a bundle outside its run does not say what its masks mean", remedy="add --experiment FILE.toml"
        )
    settings = load(described, overrides)
    if list(opened.predictor.contract.class_names) != settings.task.classes:
        raise ConfigError(
            f"{described}: its classes are not the model's ({', '.join(opened.predictor.contract.class_names)})"
        )
    run = opened.experiment.parent if opened.experiment and not experiment else None
    items, root = _items(settings, data, split, source, run=run, log=log)
    folder = Path(out) if out else _default_folder(opened, data, split, source, overrides)
    return write_report(opened, settings, items, root=root, split=split, folder=folder, log=log)


def write_report(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, root: str, split: str, folder: Path, log: Log
) -> Evaluated:
    """Measure an open model on items and write the report into ``folder``."""
    predictor, rendered = opened.predictor, count_rendered(items)
    about = {
        "kind": opened.kind,
        "weights_sha256": predictor.contract.weights_sha256,
        "experiment": settings.name,
        "data": root,
        "split": split,
        "ids_sha256": sha256_bytes("\n".join(item.id for item in items).encode()),
        "rendered": rendered,
    }
    if note := note_on_rendered(rendered, len(items)):
        log(note)
    task = jobs_task(settings.task.kind)
    return Evaluated(*task.write_report(Evaluation(opened, settings, items, about, folder, log)))


def _items(
    settings: Experiment, data: str | None, split: str, source: str | None, *, run: Path | None, log: Log
) -> tuple[list[Item], str]:
    sources = {item.name: item for item in settings.data.sources}
    if source is not None and source not in sources:
        raise ConfigError(f"--source {source}: there is none of that name", remedy=did_you_mean(source, sources))
    if data is None:
        parts = parts_of_run(settings, run, log=log) if run else find_splits(settings.data)
        items = [item for item in parts[split] if source in (None, item.source)]
        return items, sources[source].root if source else settings.data.where
    if source is None and len(sources) > 1:
        raise ConfigError(
            f"--data {data}: the experiment's sources differ in what mask values mean",
            remedy=f"add --source {' or '.join(sources)}",
        )
    folder = Path(data)
    inside = folder / split
    chosen = sources[source] if source else settings.data.sources[0]
    if not inside.is_dir():
        turned = turned_parts(chosen.model_copy(update={"root": data, "parts": list(SPLITS)}), settings.data.inputs)
        chosen = turned.get(split, chosen)
    return find_items(inside if inside.is_dir() else folder, chosen, settings.data.inputs), data


def _default_folder(opened: Opened, data: str | None, split: str, source: str | None, overrides: Sequence[str]) -> Path:
    if data is None and split == "test" and source is None and not overrides:
        return opened.folder if opened.kind == "keras" else opened.folder.parent / f"{opened.folder.name}-evaluation"
    label = Path(data).resolve().name if data else source or "data"
    base = opened.folder if opened.kind == "keras" else opened.folder.parent
    return base / "evaluation" / f"{opened.kind}-{label}-{split}"


@dataclass(frozen=True, eq=False)
class TestSet:
    """Pictures with truth: the settings that they are read by, and the items."""

    settings: Experiment
    items: list[Item]

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """The same for two sets of the same pictures, whatever experiments they come from."""
        return tuple(
            (" ".join(str(path.resolve()) for _, path in sorted(item.images.items())), ";".join(item.words))
            for item in self.items
        )


def matrix(
    models: Sequence[str], *, tests: Sequence[str], strangers: Sequence[str], out: str, log: Log
) -> tuple[dict[str, object], list[Path]]:
    """Measure classifiers on each other's test splits and on more sets; write ``matrix.json``, ``.md`` and ``.png``.

    Args:
        models: runs or bundles inside their runs.
        tests: further sets, ``NAME=PLACE``: an experiment file, whose test split is meant, or a folder with class
            folders or a ``labels.csv`` in it (or in its ``test``).
        strangers: folders of pictures that show none of the classes, ``NAME=DIR``.
        out: folder for what is written.
        log: takes lines for the user.

    Raises:
        LeakdetError: a model is no classifier, classes differ, or a set holds no pictures.
    """
    opened = [_opened(model, log) for model in models]
    sets, homes = _own_sets(opened, log)
    for text in tests:
        name, place = _named(text)
        if name in sets:
            raise ConfigError(f"--test {text}: there is a test set '{name}' already", remedy="choose another name")
        sets[name] = _set_at(name, place, opened[0][1])
    others = {name: _pictures(Path(place)) for name, place in map(_named, strangers)}
    entries = []
    for (model, settings), home in zip(opened, homes, strict=True):
        log(f"{model.folder}: {len(sets)} test sets")
        contract = model.predictor.contract
        for name, one in sets.items():
            if tuple(one.settings.task.classes) != contract.class_names:
                raise ConfigError(
                    f"{name}: its classes are not those of {model.folder} ({', '.join(contract.class_names)})",
                    remedy="the models and sets of a matrix share classes and their order",
                )
        entries.append(
            Entry(
                settings.name,
                {name: answer(model.predictor, one.settings, one.items, kind=name) for name, one in sets.items()},
                home,
                model.folder.name if model.kind == "keras" else f"{model.folder.parent.parent.name}, {model.kind}",
                {name: _unlabelled(model, name, files, log) for name, files in others.items()},
                contract.temperature,
                contract.abstain,
            )
        )
    first = opened[0][1]
    found = report(
        entries,
        first.evaluate,
        seed=first.seed,
        about={"models": [str(model.folder) for model, _ in opened]},
        rendered={name: count_rendered(one.items) for name, one in sets.items()},
    )
    folder = Path(out)
    files = [folder / "matrix.json", folder / "matrix.md", folder / "matrix.png"]
    write_json(files[0], found)
    write_text(files[1], markdown(found))
    save(heat(found, "accuracy", "accuracy of every model on every test set"), files[2])
    for line in lines(found):
        log(line)
    return found, files


def _opened(model: str, log: Log) -> tuple[Opened, Experiment]:
    opened = open_model(model)
    if opened.note:
        log(opened.note)
    if task_of(opened.predictor.contract).TRUTH != "labels":
        raise ConfigError(f"{model}: is no classifier", remedy="compare puts segmentation runs side by side")
    if opened.experiment is None:
        raise ConfigError(
            f"{model}: a bundle outside its run does not say what it was trained on", remedy="give the run"
        )
    return opened, load(opened.experiment, [])


def _own_sets(opened: Sequence[tuple[Opened, Experiment]], log: Log) -> tuple[dict[str, TestSet], list[str]]:
    """The test splits of the runs, each set of pictures once, and the name of each run's own."""
    sets: dict[str, TestSet] = {}
    homes = []
    for model, settings in opened:
        assert model.experiment is not None
        own = TestSet(settings, parts_of_run(settings, model.experiment.parent, log=log)["test"])
        name = next((name for name, one in sets.items() if one.key == own.key), "")
        if not name:
            sources = sorted({item.source for item in own.items})
            name = "+".join(sources) if settings.data.source and "+".join(sources) not in sets else settings.name
            name = name if name not in sets else f"{settings.name} {model.experiment.parent.name}"
            sets[name] = own
        homes.append(name)
    return sets, homes


def _named(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not (name and equals and place):
        raise ConfigError(f"{text}: not NAME=PLACE", remedy="such as elsewhere=photos/elsewhere")
    return name, place


def _set_at(name: str, place: str, like: Experiment) -> TestSet:
    path = Path(place)
    if path.suffix == ".toml":
        settings = load(path, [])
        render_if_absent(settings)
        return TestSet(settings, find_splits(settings.data)["test"])
    folder = path / "test" if (path / "test").is_dir() else path
    if not folder.is_dir():
        raise DataError(f"{place}: no such folder", remedy="give an experiment file or a folder")
    labels = TABLE if (folder / TABLE).is_file() else FOLDERS
    values = like.data.sources[0].values if labels == FOLDERS else {}
    source = Source(name="set", root=place, labels=labels, values=values)
    data = like.data.model_copy(update={"source": [source]})
    return TestSet(like.model_copy(update={"data": data}), find_items(folder, source, like.data.inputs))


def _pictures(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: holds no picture", remedy=f"pictures end in {', '.join(SUFFIXES)}")
    return files


def _unlabelled(opened: Opened, name: str, files: Sequence[Path], log: Log) -> Answers:
    """A classifier's scores on pictures of no class; such as cannot be read are told and left out.

    Raises:
        DataError: none can be read.
    """
    predictor, rows, ids = opened.predictor, [], []
    frames = pair_pictures(files, opened, log=log)
    for frame in track(frames, "answering strangers", len(frames)):
        try:
            images = predictor.load(frame)
        except ImageError as error:
            log(str(error))
            continue
        rows.append(next(iter(predictor.outputs(images).values())))
        ids.append(str(frame[predictor.contract.primary]))
    if not rows:
        raise DataError(
            f"--strangers {name}: none of its {len(files)} pictures can be read", remedy="replace them, or leave it out"
        )
    contract = predictor.contract
    truth = np.zeros((len(rows), len(contract.classes)), np.uint8)
    return Answers(tuple(ids), truth, np.stack(rows).astype(np.float32), contract.class_names, contract.activation)
