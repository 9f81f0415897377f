"""What the program writes: results to stdout, progress to stderr; colour only where that is a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, TextIO

from onnxmorph.progress import listening

if TYPE_CHECKING:
    from rich.progress import Progress

REDRAWN = 0.05  # seconds between two pictures of a bar


def show(result: Any, to: TextIO | None = None) -> None:
    """A JSON object, or a list of what rich can draw; in one piece, so that a closed pipe is met here."""
    stream = to or sys.stdout
    if isinstance(result, dict):
        _write(json.dumps(result, indent=2, allow_nan=False) + "\n", stream)
        return
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    console.width = min(console.width, 100)
    with console.capture() as drawn:
        for each in result:
            console.print(each, soft_wrap=isinstance(each, str))  # a path is not broken into lines
    _write(drawn.get(), stream)


class ReaderGone(Exception):
    """Nobody reads stdout any more; not an OSError, of which typer would make exit code 1."""


def write(data: bytes) -> None:
    """Bytes, to stdout."""
    _write(data, sys.stdout.buffer)


def _write(data: AnyStr, stream: IO[AnyStr]) -> None:
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:
        raise ReaderGone from None


@contextmanager
def working(what: str) -> Iterator[None]:
    """A bar on stderr, where that is a terminal, with the time left of the part that is under way."""
    if not sys.stderr.isatty():
        yield
        return
    with _bar() as bar:
        task, drawn = bar.add_task(f"{what} …", total=None), 0.0

        def tell(part: str, done: int, of: int) -> None:
            nonlocal drawn, task
            now = monotonic()
            if done in (0, of):  # another part, whose time is counted anew; or what cannot be counted
                bar.remove_task(task)
                name, steps = (part, of) if done < of else (what, None)
                task = bar.add_task(f"{name} …", total=steps)
            elif now - drawn > REDRAWN:
                drawn = now
                bar.update(task, completed=done)

        with listening(tell):
            yield


def _bar() -> Progress:
    """A bar with the time left; gone when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def telling(text: str) -> None:
    """A line on stderr, where that is a terminal; a bar would break what the user's function draws there."""
    if sys.stderr.isatty():
        from onnxmorph.report import plain

        print(plain(text), file=sys.stderr)


class Meter:
    """A bar on stderr, where that is a terminal: of work that ends after some seconds or some steps."""

    def __init__(self, what: str, seconds: float, steps: int, unit: str = "runs") -> None:
        self._seconds, self._steps, self._unit = max(seconds, 1e-9), steps, unit
        self._bar = _bar()
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
