"""Photos chosen by what the manifest measured of them: ``psnr_db<30``, ``target_met=false``.

Knows the manifest's columns. Decides nothing about what is done with the photos.
"""

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from pipeline.errors import ConfigurationError
from pipeline.manifest_row import MANIFEST_SCHEMA
from pipeline.output.manifest import newest_rows
from pipeline.storage.store import Store

_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_COLUMNS = [field.name for field in MANIFEST_SCHEMA if not pa.types.is_nested(field.type)]


@dataclass(frozen=True)
class Condition:
    """One comparison of a manifest column with a value."""

    column: str
    operator: str
    value: bool | float | str | None
    """None: the column is null (``=``), or is not (``!=``)."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads ``COLUMN<VALUE`` with one of ``= != < <= > >=``; ``null`` is no value at all.

        Raises:
            ConfigurationError: For another form, an unknown column or a value of another type.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"{text!r}: expected a condition such as psnr_db<30")
        column, sign, value = match.groups()
        if column not in _COLUMNS:
            near = difflib.get_close_matches(column, _COLUMNS, 1)
            hint = f"did you mean {near[0]}?" if near else f"columns are {', '.join(_COLUMNS)}"
            raise ConfigurationError(f"{text!r}: no column {column!r} to compare; {hint}")
        parsed = _value(text, value, MANIFEST_SCHEMA.field(column).type)
        if sign not in ("=", "!=") and (parsed is None or isinstance(parsed, bool)):
            raise ConfigurationError(f"{text!r}: only = and != make sense here")
        return cls(column, sign, parsed)

    def holds(self, found: Any) -> bool:
        """Whether a column's value fits; where nothing was measured only ``=null`` does."""
        if self.value is None:
            return (found is None) == (self.operator == "=")
        return found is not None and _OPERATORS[self.operator](found, self.value)


def select_sources(store: Store, conditions: Sequence[Condition]) -> frozenset[str]:
    """Source URIs whose newest manifest row meets all conditions; none without a condition."""
    if not conditions:
        return frozenset()
    return frozenset(
        row.source_uri
        for row in newest_rows(store, [condition.column for condition in conditions])
        if all(condition.holds(getattr(row, condition.column)) for condition in conditions)
    )


def _value(text: str, value: str, kind: pa.DataType) -> bool | float | str | None:
    if value == "null":
        return None
    if pa.types.is_boolean(kind):
        if value not in ("true", "false"):
            raise ConfigurationError(f"{text!r}: expected true, false or null")
        return value == "true"
    if pa.types.is_string(kind):
        return value
    try:
        return float(value)
    except ValueError:
        raise ConfigurationError(f"{text!r}: expected a number or null") from None
