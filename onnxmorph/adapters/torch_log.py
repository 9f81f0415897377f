"""Widths, costs and strength over a training run, as CSV."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import torch.distributed as dist

from onnxmorph.adapters.torch import Morph
from onnxmorph.errors import OutputError


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

    def write(self, morph: Morph) -> None:
        """Add the row of now, unless nothing happened since the last. Raises OutputError where it cannot."""
        now = morph.scalars()
        if now["step"] == self._last or (dist.is_available() and dist.is_initialized() and dist.get_rank()):
            return
        try:
            if self._last is None:
                self._open(now)
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(now.values())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror}", code="output") from error
        self._last = now["step"]

    def _open(self, now: dict[str, float]) -> None:
        """Write the columns and what is there of earlier steps."""
        earlier: list[list[str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                columns, *earlier = csv.reader(file)
            if columns != list(now):
                message = f"{self.path} has other columns than this run; give a new file, or the one of this run"
                raise OutputError(message, code="output")
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(now), *(row for row in earlier if float(row[0]) < now["step"])])
