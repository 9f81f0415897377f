"""What the program writes: results to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any


def show(result: Any) -> None:
    """A JSON object, or a list of what rich can draw; in one piece, so that a closed pipe is met here."""
    if isinstance(result, dict):
        _write(json.dumps(result, indent=2, allow_nan=False) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, 100)
    with console.capture() as drawn:
        for each in result:
            console.print(each, soft_wrap=isinstance(each, str))  # a path is not broken into lines
    _write(drawn.get())


class ReaderGone(Exception):
    """Nobody reads stdout any more; not an OSError, of which typer would make exit code 1."""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def telling(text: str) -> None:
    """A line on stderr, where that is a terminal; a bar would break what the user's function draws there."""
    if sys.stderr.isatty():
        from onnxmorph.report import plain

        print(plain(text), file=sys.stderr)


class Meter:
    """A bar on stderr, where that is a terminal: of work that ends after some seconds or some steps."""

    def __init__(self, what: str, seconds: float, steps: int, unit: str = "runs") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._seconds, self._steps, self._unit = max(seconds, 1e-9), steps, unit
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
        self._task, self._what = self._bar.add_task(f"{what} …", total=1.0), what

    def advance(self, steps: int, seconds: float = 0.0) -> None:
        """Tell how far it is."""
        done = max(steps / self._steps, seconds / self._seconds)
        self._bar.update(self._task, completed=min(done, 1.0), description=f"{self._what}: {steps} {self._unit}")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
