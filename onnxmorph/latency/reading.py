"""Tables of device files: every value is asked for, and what is missing, wrong or left over is an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from onnxmorph.errors import DeviceError

T = TypeVar("T")
Table = Mapping[str, Any]

# What values have to be, as messages say it.
RATE = "a number from 1 to 1e24"
SECONDS = "a number of seconds from 0 to 60"
MULTIPLE = "a whole number from 1 to 4096"


def _number(value: Any, least: float, most: float) -> float | None:
    """A number in a range; a truth value is none, nor is what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return None
    return float(value)


def is_rate(value: Any) -> float | None:
    """A number from 1 to 1e24."""
    return _number(value, 1, 1e24)


def is_seconds(value: Any) -> float | None:
    """A number from 0 to 60."""
    return _number(value, 0, 60)


def is_number(value: Any) -> float | None:
    """A number that is not negative."""
    return _number(value, 0, math.inf) if value != math.inf else None


def is_whole(value: Any) -> int | None:
    """A whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_multiple(value: Any) -> int | None:
    """A whole number from 1 to 4096."""
    return value if is_whole(value) is not None and 1 <= value <= 4096 else None


def is_text(value: Any) -> str | None:
    """A text."""
    return value if isinstance(value, str) else None


def is_table(value: Any) -> Table | None:
    """A table."""
    return value if isinstance(value, dict) else None


class Reader:
    """Takes the keys of a table one by one, and complains about what is missing, wrong or left over.

    In a file of a newer minor version nothing is left over: keys that nobody knows are what it added.
    """

    def __init__(self, source: str, table: Table, prefix: str = "", *, newer: bool = False) -> None:
        self.source, self.table, self.prefix, self.newer = source, table, prefix, newer
        self.taken: list[str] = []

    def under(self, table: Table, key: str) -> Reader:
        """Of a table in this one."""
        return Reader(self.source, table, f"{self.prefix}{key}.", newer=self.newer)

    def take(self, key: str, expected: str, read: Callable[[Any], T | None], *default: Any) -> T | Any:
        """The value of a key, or the default; `read` gives None for what is not as `expected`."""
        if key not in self.taken:
            self.taken.append(key)
        where = f"{self.source}: {self.prefix}{key}"
        if key not in self.table:
            if default:
                return default[0]
            raise DeviceError(f"{where}: missing; expected {expected}", code="device-key")
        found = read(self.table[key])
        if found is None:
            shown = repr(self.table[key])
            shown = shown if len(shown) < 60 else f"{shown[:57]}..."
            raise DeviceError(f"{where}: expected {expected}, found {shown}", code="device-value")
        return found

    def finish(self) -> None:
        """Complain about keys that nobody took."""
        for key in self.table:
            if key not in self.taken and not self.newer:
                message = f"{self.source}: {self.prefix}{key}: unknown; expected {', '.join(self.taken)}"
                raise DeviceError(message, code="device-key")
