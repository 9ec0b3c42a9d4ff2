"""The data that an experiment asks for: rendered when they are to be, found, and decoded with a bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import Sample
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.readers import Item, label_table, read
from leakdet_tf.training.progress import track


def specs(experiment: Experiment) -> dict[str, ImageSpec]:
    """The model's inputs by name, as ``[data.inputs]`` says."""
    return {
        name: ImageSpec(item.size[0], item.size[1], item.channels, item.dtype, item.fit, item.pad)
        for name, item in experiment.data.inputs.items()
    }


def contract_of(experiment: Experiment, activation: str) -> Contract:
    """The contract of a model that is yet to be trained."""
    return Contract(
        task=experiment.task.kind,
        inputs=specs(experiment),
        classes=classes_of(experiment.task.classes, dict(experiment.task.colors)),
        activation=activation,  # type: ignore[arg-type]  # checked by Contract
        experiment=experiment.name,
    )


def render_if_absent(experiment: Experiment) -> None:
    """Render ``[data.synth]`` into ``data.root`` unless it exists; what exists must be what was asked for."""
    synth, root = experiment.data.synth, Path(experiment.data.root)
    if synth is None:
        return
    counts = {str(name): count for name, count in synth.counts.items()}
    render(root, synth.generator, counts, (synth.size[0], synth.size[1]), synth.seed)


def render(root: Path, generator: str, counts: dict[str, int], size: tuple[int, int], seed: int) -> bool:
    """Render a folder with a bar. False when it exists already, as it should be."""
    from leakdet_tf.synth.folder import check_folder, render_folder

    if root.exists():
        check_folder(root, generator=generator, counts=counts, size=size, seed=seed)
        return False
    work = render_folder(root, generator=generator, counts=counts, size=size, seed=seed)
    for _ in track(work, f"rendering {root}", sum(counts.values())):
        pass
    return True


def decode_all(experiment: Experiment, parts: dict[str, list[Item]], contract: Contract) -> dict[str, Cache]:
    """Every split decoded, with a bar each."""
    caches: dict[str, Cache] = {}
    for name, items in parts.items():
        if not items:
            raise DataError(
                f"{experiment.data.root}: the {name} split is empty", remedy="fit needs train, val and test"
            )
        work = fill(items, contract, label_table(experiment.data.values, experiment.task.classes))
        for step in track(work, f"reading {name}", len(items)):
            if isinstance(step, Cache):
                caches[name] = step
    return caches


def samples(experiment: Experiment, items: Sequence[Item]) -> Iterable[Sample]:
    """Items decoded one by one, at their own size."""
    table = label_table(experiment.data.values, experiment.task.classes)
    for item in items:
        yield read(item, table).sample
