"""A run on its way through ``fit``: what is known of it so far, its folder, and what it is made from."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import dump
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import write_json, write_text
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.findings import survey
from leakdet_tf.data.items import Item, count_rendered
from leakdet_tf.data.splits import save_manifest
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.jobs.run.resume import (
    DATA,
    ENVIRONMENT,
    locked,
    same_data,
)
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log, Opened, create_run, environment, logger
from leakdet_tf.jobs.run.track import Tracker

if TYPE_CHECKING:  # these import Keras, whose backend is chosen first
    from leakdet_tf.training.checkpoint import Checkpoint
    from leakdet_tf.training.loop import Outcome


class Run:
    """A run on its way. Each step of :func:`fit` takes what those before it have found, and adds its own.

    Attributes:
        experiment: what is asked for.
        echo: takes lines for the user.
        held: what is let go when the run ends: locks, files, MLflow.
        quarantine: whether files that are at fault are left out.
        resumed: the folder of the run that is gone on with, or None.
        told: lines for the log, once there is one.
        shown: so too, but the user has seen them.
        model, contract: from :func:`_build`.
        checkpoint: what training goes on from, or None.
        started: where the first weights came from.
        parts, caches: items and decoded pictures by split, from :func:`_read_data`.
        folder, log: from :func:`open_folder`.
        tracker: from :func:`_train`.
        outcome: how training ended.
        opened: the best model.
    """

    model: Any
    contract: Contract
    checkpoint: Checkpoint | None
    started: dict[str, Any]
    parts: dict[str, list[Item]]
    caches: dict[str, Cache]
    folder: Path
    log: Log
    tracker: Tracker
    outcome: Outcome
    opened: Opened

    def __init__(
        self, experiment: Experiment, *, echo: Log, held: ExitStack, quarantine: bool, resumed: Path | None
    ) -> None:
        self.experiment, self.echo, self.held, self.quarantine = experiment, echo, held, quarantine
        self.resumed = resumed
        self.told: list[str] = []
        self.shown: list[str] = []

    def show(self, line: str) -> None:
        """Tell the user at once, and the log once there is one."""
        self.shown.append(line)
        self.echo(line)


def open_folder(run: Run) -> None:
    if run.resumed is None:
        run.folder = create_run(run.experiment.runs, run.experiment.name)
        run.held.enter_context(locked(run.folder))
    else:
        run.folder = run.resumed
    same_data(run.folder, run.caches)
    run.log = logger(run.folder / "log.txt", run.echo)
    run.log(f"run folder: {run.folder}")
    for line in run.shown:
        logger(run.folder / "log.txt", lambda _: None)(line)
    for line in run.told:
        run.log(line)


def write_inputs(run: Run, given: dict[str, dict[str, Any]]) -> None:
    folder, data = run.folder, run.experiment.data
    write_text(folder / EXPERIMENT, dump(run.experiment))
    write_json(folder / ENVIRONMENT, environment())
    write_json(
        folder / DATA,
        {
            name: {
                "pictures": len(cache),
                "sha256": cache.sha256,
                "rendered": count_rendered(run.parts[name]),
                "sources": given[name],
                "files": dict(zip(cache.ids, map(list, cache.digests), strict=True)),
            }
            for name, cache in run.caches.items()
        },
    )
    for source in data.sources:
        if source.split is not None:
            # All of the folder stands in its manifest: also what quarantine, take and parts leave out.
            whole = source.model_copy(update={"take": 0, "parts": list(SPLITS)})
            divided = survey(data.model_copy(update={"source": [whole]}))[0]
            prefix, several = f"{source.name}/", bool(data.source)
            ids = {name: [item.id.removeprefix(prefix) for item in items] for name, items in divided.items()}
            manifest = folder / (f"split-{source.name}.json" if several else "split.json")
            save_manifest(manifest, ids, source.split, source.root)
    run.contract.save(folder / CONTRACT)


def tell_sources(given: dict[str, Any], log: Log) -> None:
    for name, part in given.items():
        total = max(1, sum(part["pixels"].values()))
        shares = ", ".join(f"{label} {count / total:.1%}" for label, count in part["pixels"].items())
        log(f"source {name}: {part['pictures']} training pictures, {part['epoch_share']:.1%} of an epoch; {shares}")
