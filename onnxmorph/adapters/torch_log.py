"""Widths, costs and strength over a training run, as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist

from onnxmorph.adapters.torch import Morph
from onnxmorph.errors import OutputError
from onnxmorph.files import write_text


class CsvLog:
    """A row per step of a `Morph`: ``step``, ``strength``, ``cost/NAME``, ``width/GROUP``.

    >>> log = CsvLog("widths.csv")  # doctest: +SKIP
    >>> morph.step()                # doctest: +SKIP
    >>> log.write(morph)            # doctest: +SKIP

    A resumed run drops the rows beyond its checkpoint and goes on. Of several ranks the first writes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._last: float | None = None
        self._columns: list[str] = []

    def write(self, morph: Morph) -> None:
        """Add the row of now, unless nothing happened since the last. Raises OutputError where it cannot."""
        now = morph.scalars()
        if now["step"] == self._last or (dist.is_available() and dist.is_initialized() and dist.get_rank()):
            return
        try:
            if self._last is None:
                self._open(now)
            with self.path.open("ab", buffering=0) as file:  # one call of the system per row: none is cut by a kill
                file.write(_lines([[now.get(name, "") for name in self._columns]]).encode())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}", code="output") from error
        self._last = now["step"]

    def _open(self, now: dict[str, float]) -> None:
        """Write the columns and what is there of earlier steps; columns of a later version stay, and get nothing."""
        text = self.path.read_bytes().decode("utf-8") if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a disk that was full may have cut the last row
        self._columns, *earlier = list(csv.reader(io.StringIO(whole))) or [list(now)]
        if not set(now) <= set(self._columns):
            message = f"{self.path} has other columns than this run; give a new file, or the one of this run"
            raise OutputError(message, code="output")
        step = self._columns.index("step")
        write_text(_lines([self._columns, *(row for row in earlier if float(row[step]) < now["step"])]), self.path)


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
