"""The reference page of the experiment file, made from the schema: ``python -m leakdet_tf.config.reference``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from leakdet_tf.config.loading import known_keys
from leakdet_tf.config.schema import Experiment

_HEAD = """# The experiment file

Every key of an experiment's TOML, with its default. `*` stands for a name of your own. A key that is not here is an
error, except under `[model]`, whose other keys are the arguments of the factory. On the command line `--set` overrides
any of them, such as `--set train.epochs=3`; a value is written as in TOML, and text needs no quotes. Text is never
empty, unless its default is. `data.source` tables are counted from 0 there: `--set data.source.0.weight=2`.

This page is written by `make docs` from `leakdet_tf/config/`; a test compares the two.

| key | type | default | meaning |
|---|---|---|---|
"""

_WIDE = 2**31  # the bound of every integer: not worth a word


def page() -> str:
    """The whole page as Markdown."""
    return _HEAD + "".join(_rows())


def _rows() -> list[str]:
    rows = []
    for key, table in known_keys(Experiment):
        field = table.model_fields[key.rsplit(".", 1)[-1]]
        if not field.description:
            continue
        meaning = field.description.replace("|", "\\|")
        rows.append(f"| `{key}` | {_kind(field.annotation, field.metadata)} | {_default(field)} | {meaning} |\n")
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "absent"
    return "" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words with its bounds: ``integer ≥ 1``, ``list of 2 integers``, ``list of text``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0], arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{json.dumps(item)}`" for item in arguments)
    if origin is list:
        limits = _limits(metadata)
        exact = limits.get("min_length") if limits.get("min_length") == limits.get("max_length") else None
        inner = _kind(arguments[0])
        word, _, rest = inner.partition(" ")
        if exact and word in ("integer", "number"):
            return f"list of {exact} {word}s {rest}".strip()
        return f"list of {inner}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    if arguments:  # alternatives, or Table | None
        return " or ".join(_kind(argument) for argument in arguments if argument is not type(None))
    word = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Any: "anything"}[annotation]
    limits = _limits(metadata)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [f"{sign} {limits[key]}" for key, sign in signs.items() if limits.get(key, _WIDE) != _WIDE]
    return " ".join([word, ", ".join(bounds)]).strip()


def _limits(metadata: Sequence[Any]) -> dict[str, Any]:
    # Bounds stand on the field itself, or inside the Field() of an Annotated type.
    found: dict[str, Any] = {}
    for item in metadata:
        for part in (item, *getattr(item, "metadata", ())):
            for key in ("ge", "gt", "le", "lt", "min_length", "max_length"):
                if getattr(part, key, None) is not None:
                    found[key] = getattr(part, key)
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
