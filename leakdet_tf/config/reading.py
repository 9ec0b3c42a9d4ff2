"""TOML files that are checked against tables: read, overridden, and explained where they cannot be followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

import tomllib
from pydantic import BaseModel, ValidationError

from leakdet_tf.core.errors import ConfigError, did_you_mean

T = TypeVar("T", bound=BaseModel)

_BRANCHES = ("str",)  # how pydantic names the alternatives of a type, besides those with brackets
_SHOWN = 80  # characters of a wrong value that a message quotes


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of file, and what messages about one say.

    Attributes:
        table: the outermost table.
        page: where its keys are explained.
        example: an override that could be right.
        numbered: one of a key in a list of tables.
    """

    table: type[T]
    page: str
    example: str
    numbered: str

    def read(
        self,
        source: str | Path | Mapping[str, Any],
        overrides: Sequence[str] = (),
        tables: Mapping[str, Any] | None = None,
    ) -> T:
        """Read a file, or take what one holds as plain data; then apply ``table.key=value`` overrides and ``tables``.

        Raises:
            ConfigError: one line with the file, the key, the value and what would be right.
        """
        data = deepcopy(dict(source)) if isinstance(source, Mapping) else self._parsed(Path(source))
        for override in overrides:
            self._override(data, override)
        _put_over(data, tables or {})
        return self.check(data, where="experiment" if isinstance(source, Mapping) else str(source))

    def _parsed(self, path: Path) -> dict[str, Any]:
        try:
            text = path.read_text(encoding="utf-8-sig")  # some editors begin UTF-8 with a mark
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text ({error.reason})", remedy="save it as UTF-8") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path}: cannot be read ({reason})", remedy="check the path") from error
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not valid TOML ({error})", remedy="fix that line") from error

    def check(self, data: dict[str, Any], *, where: str) -> T:
        """Plain data as the table; errors are as in :meth:`read`, with ``where`` in place of the file."""
        try:
            return self.table.model_validate(data)
        except ValidationError as error:
            raise self._explained(error, where) from error

    def _table_at(self, place: Sequence[str]) -> type[BaseModel] | None:
        table: type[BaseModel] = self.table
        parts = iter(place)
        for part in parts:
            field = table.model_fields.get(part)
            inner = _table_in(field.annotation) if field else None
            if field is None or inner is None:
                return None
            table = inner
            if _holds_named(field.annotation) or get_origin(field.annotation) is list:
                next(parts, None)
        return table

    def _override(self, data: dict[str, Any], override: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in override):
            raise ConfigError(f"--set {override}: not UTF-8 text", remedy="rename the file or folder")
        key, separator, text = override.partition("=")
        parts = _parts(key.strip())
        if not separator or not parts or not all(parts):
            raise ConfigError(
                f"--set {override}: not of the form table.key=value", remedy=f"such as --set {self.example}"
            )
        table: Any = data
        for part in parts[:-1]:
            inner: Any = table.setdefault(part, {}) if isinstance(table, dict) else self._entry(table, part, override)
            if not isinstance(inner, dict | list):
                raise ConfigError(f"--set {override}: '{part}' is a value, not a table", remedy="shorten the key")
            table = inner
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: needs a key after the number", remedy=f"such as {self.numbered}")
        value = _value(text.strip())
        parent = self._table_at(parts[:-1])
        field = parent.model_fields.get(parts[-1]) if parent else None
        if field is not None and field.annotation is str and not isinstance(value, str | list | dict):
            value = text.strip()  # a folder named 2024 or 2024-05-01
        table[parts[-1]] = value

    def _entry(self, tables: list[Any], part: str, override: str) -> Any:
        # [[data.source]] tables are named by their number, from 0.
        if not part.isdecimal() or int(part) >= len(tables):
            raise ConfigError(
                f"--set {override}: '{part}' is none of the {len(tables)} tables there",
                remedy=f"they are numbered from 0, such as {self.numbered}",
            )
        return tables[int(part)]

    def _explained(self, error: ValidationError, where: str) -> ConfigError:
        # A mistyped key is also a missing one: what is there is named before what is not. Where text or a list is
        # allowed and a list stands there, what is wrong in it is named before its not being text.
        problems = sorted(
            error.errors(),
            key=lambda problem: (
                problem["type"] != "extra_forbidden",
                problem["type"] in ("literal_error", "string_type") and isinstance(problem["input"], list),
            ),
        )
        first = problems[0]
        place = [str(part) for part in first["loc"] if part not in _BRANCHES and "[" not in str(part)]
        key = ".".join(place)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        head = f"{where}: {key}: " if key else f"{where}: "
        if first["type"] == "extra_forbidden":
            return ConfigError(f"{head}unknown key{more}", remedy=self._suggestion(place))
        if first["type"] == "missing":
            return ConfigError(f"{head}missing{more}", remedy=f"{self.page} says what it means")
        said = first["msg"].removeprefix("Value error, ")
        table, (own, _, rest) = self._table_at(place), said.partition(": ")
        if table is not None and own in table.model_fields:  # what a table says of its keys together
            head, said = f"{where}: {'.'.join([*place, own])}: ", rest
        said = said[:1].lower() + said[1:]
        if first["type"] in ("too_short", "too_long"):
            said = said.replace(" after validation", "").replace("dictionary", "table")
        elif first["type"] in ("model_type", "dict_type"):
            said = "must be a table"
        return ConfigError(f"{head}{said}{_got(first['input'])}{more}", remedy=f"{self.page} lists what is allowed")

    def _suggestion(self, place: list[str]) -> str:
        wrong = place[-1]
        table = self._table_at(place[:-1])
        elsewhere = [key for key, _ in keys(self.table) if key.rsplit(".", 1)[-1] == wrong]
        if elsewhere:
            return f"did you mean '{elsewhere[0]}'?"
        return did_you_mean(wrong, table.model_fields if table else ())


def keys(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every dotted key below a table with the table that holds it; a name chosen by the user stands as ``*``."""
    for name, field in table.model_fields.items():
        key = f"{prefix}{name}"
        yield key, table
        inner = _table_in(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{key}.*." if _holds_named(field.annotation) else f"{key}.")


def _put_over(data: dict[str, Any], tables: Mapping[str, Any]) -> None:
    for key, value in tables.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            _put_over(data[key], value)
        else:
            data[key] = deepcopy(value)


def _holds_named(annotation: Any) -> bool:
    # Whether the tables below have names of the user's choice: dict[str, Table].
    return get_origin(annotation) is dict


def _table_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_table_in(argument) for argument in get_args(annotation))
    return next((table for table in found if table is not None), None)


def _parts(key: str) -> list[str]:
    # Quotes are only needed around a name with a dot in it, such as a class's: task.colors."no. 2".
    if '"' not in key and "'" not in key:
        return key.split(".")
    try:
        inner: Any = tomllib.loads(f"{key} = 0")
    except (ValueError, RecursionError):
        return []
    parts = []
    while isinstance(inner, dict):
        if len(inner) != 1:
            return []
        part, inner = next(iter(inner.items()))
        parts.append(part)
    return parts


def _value(text: str) -> Any:
    # A TOML value where it is one, else the text itself, so that paths and names need no quotes.
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def _got(value: Any) -> str:
    if isinstance(value, dict | BaseModel):
        return ""
    try:
        shown = repr(value) if isinstance(value, str | list) else str(value)  # dates as TOML writes them
        shown = shown.lower() if isinstance(value, bool) else shown
    except ValueError:  # Python prints no integers of more than 4300 digits
        shown = "a number of thousands of digits"
    return f" (got {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'})"
