"""Experiment files: read, overridden from the command line, checked, and written back as they were resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from leakdet_tf.config.reading import Kind, keys
from leakdet_tf.config.schema import Experiment

_FILE = Kind(Experiment, page="docs/experiment-file.md", example="train.epochs=3", numbered="data.source.0.weight=2")


def load(
    experiment: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), tables: Mapping[str, Any] | None = None
) -> Experiment:
    """Read an experiment and override some of it.

    Args:
        experiment: the path of a TOML file, or what one holds as plain data.
        overrides: ``table.key=value``, as ``--set`` takes them.
        tables: keys and tables such as ``{"train": {"epochs": 3}}``, put over those that are there.

    Raises:
        ConfigError: one line with the file, the key, the value and what would be right.
    """
    return _FILE.read(experiment, overrides, tables)


def parse(data: dict[str, Any], *, where: str = "experiment") -> Experiment:
    """Check plain data against the schema; errors are as in :func:`load`."""
    return _FILE.check(data, where=where)


def dump(experiment: Experiment) -> str:
    """The experiment with every default written out, as TOML that :func:`load` reads back to an equal one."""
    return tomli_w.dumps(experiment.model_dump(exclude_none=True))


def known_keys(table: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every dotted key of the schema with the table that holds it; a name chosen by the user stands as ``*``."""
    return keys(table, prefix)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted key; tables in lists go by their number, as in ``data.source.0.root``."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        inner = {str(number): item for number, item in enumerate(value)}.items()
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in inner:
        found |= flatten(item, f"{prefix}.{key}" if prefix else key)
    return found
