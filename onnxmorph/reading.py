"""Tables of JSON and TOML files: every value is asked for, and what is missing, wrong or left over is an error.

The error names the file, the place in it, what was expected there and what was found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from onnxmorph.errors import OnnxMorphError

T = TypeVar("T")
Table = Mapping[str, Any]
Wrong = Callable[[str, bool], OnnxMorphError]  # from a sentence; whether it is about a key, not about its value

LARGEST = sys.float_info.max

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
    """A number that is not negative, and that a float can hold."""
    return _number(value, 0, LARGEST)


def is_whole(value: Any) -> int | None:
    """A whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_multiple(value: Any) -> int | None:
    """A whole number from 1 to 4096."""
    return value if is_whole(value) is not None and 1 <= value <= 4096 else None


def is_list(value: Any) -> list[Any] | None:
    """A list."""
    return value if isinstance(value, list) else None


def is_text(value: Any) -> str | None:
    """A text."""
    return value if isinstance(value, str) else None


def is_table(value: Any) -> Table | None:
    """A table."""
    return value if isinstance(value, dict) else None


def shown(value: Any) -> str:
    """A value as messages show it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) < 60 else f"{text[:57]}..."


class Reader:
    """Takes the keys of a table one by one, and complains about what is missing, wrong or left over.

    In a file of a newer minor version nothing is left over: keys that nobody knows are what it added.
    """

    def __init__(self, source: str, table: Table, prefix: str, wrong: Wrong, *, newer: bool = False) -> None:
        self.source, self.table, self.prefix, self.wrong, self.newer = source, table, prefix, wrong, newer
        self.taken: list[str] = []

    def take(self, key: str, expected: str, read: Callable[[Any], T | None], *default: Any) -> T | Any:
        """The value of a key, or the default; `read` gives None for what is not as `expected`."""
        if key not in self.taken:
            self.taken.append(key)
        if key not in self.table:
            if default:
                return default[0]
            raise self.wrong(f"{self.source}: {self.prefix}{key}: missing; expected {expected}", True)
        return self.value(key, expected, read(self.table[key]), self.table[key])

    def value(self, place: str, expected: str, found: T | None, given: Any) -> T:
        """What was read at a place below this one; an error where it is None."""
        if found is None:
            self.complain(place, expected, given)
        return found

    def complain(self, place: str, expected: str, given: Any) -> NoReturn:
        """What stands at a place below this one is wrong."""
        message = f"{self.source}: {self.prefix}{place}: expected {expected}, found {shown(given)}"
        raise self.wrong(message, False)

    def inner(self, key: str, *default: Any) -> Reader:
        """The reader of a table in this one."""
        return self.at(key, self.take(key, "a table", is_table, *default))

    def at(self, place: str, table: Any) -> Reader:
        """The reader of something that stands at a place below this one, and has to be a table."""
        found = self.value(place, "a table", is_table(table), table)
        return Reader(self.source, found, f"{self.prefix}{place}.", self.wrong, newer=self.newer)

    def finish(self) -> None:
        """Complain about keys that nobody took."""
        for key in self.table:
            if key not in self.taken and not self.newer:
                message = f"{self.source}: {self.prefix}{key}: unknown; expected {', '.join(self.taken)}"
                raise self.wrong(message, True)
