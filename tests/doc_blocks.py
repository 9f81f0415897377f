"""The code blocks of the documentation, and what it takes to run those of a page as a reader would."""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxmorph.cli import run

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
PROGRAMS = {"onnxmorph", "python", "pip", "make", "trtexec", "ovc"}
FENCE = re.compile(r"```(\w*)(?: title=\"(.*)\")?$")
NOT_RUN = re.compile(r"<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A block of code: the number of its first line, its language ("" for a figure), its text.

    ``title`` is the file that it stands for. ``reason`` says why it is not run, where it is not.
    """

    page: str
    line: int
    language: str
    text: str
    title: str = ""
    reason: str = ""


def blocks(page: str) -> list[Block]:
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    """Fenced blocks, and indented ones that follow an empty line outside a list."""
    k, reason, before = 0, "", ""
    while k < len(lines):
        line = lines[k]
        if fence := FENCE.match(line):
            end = lines.index("```", k + 1)
            yield Block(page, k + 2, fence[1], "\n".join(lines[k + 1 : end]) + "\n", fence[2] or "", reason)
            k, reason = end, ""
        elif line.startswith("    ") and not lines[k - 1] and not re.match(r"\s*(\*|\d+\.) ", before):
            end = k
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            text = "".join(f"{each[4:]}\n" for each in lines[k:end]).rstrip("\n") + "\n"
            yield Block(page, k + 1, "sh" if text.split()[0] in PROGRAMS else "", text, reason=reason)
            k, reason = end - 1, ""
        elif mark := NOT_RUN.match(line):
            reason = mark[1]
        elif line:
            reason, before = "", line
        k += 1


class Reader:
    """Runs the blocks of one page in order, in the current folder, and compares what they print with what it shows."""

    def __init__(self, output: pytest.CaptureFixture[str], names: dict[str, Any]) -> None:
        self.output, self.names, self.printed = output, {"__name__": "__main__", **names}, ""

    def read(self, page: list[Block]) -> None:
        for block in page:
            if block.title and not block.reason:
                Path(block.title).parent.mkdir(parents=True, exist_ok=True)
                Path(block.title).write_text(block.text, encoding="utf-8")
        for block in page:
            if not block.reason and not (block.title and block.language == "python"):
                getattr(self, f"_{block.language or 'figure'}")(block)

    def _python(self, block: Block) -> None:
        with self._printing():
            lines = "\n" * (block.line - 1) + block.text  # so that errors name the line of the page
            exec(compile(lines, block.page, "exec"), self.names)

    def _sh(self, block: Block) -> None:
        with self._printing():
            for line in block.text.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line, comments=True) or [""]
                assert program in ("onnxmorph", "python", ""), f"{block.page}: cannot run {line!r}; say why it is not"
                if program == "onnxmorph":
                    assert run(arguments) == 0, f"{block.page}: {line}: {self.output.readouterr()}"
                elif program == "python":
                    runpy.run_path(arguments[0], run_name="__main__")

    def _text(self, block: Block) -> None:
        """What the block before prints, line by line, but for spaces."""
        lines = {" ".join(line.split()) for line in self.printed.splitlines()}
        for line in block.text.splitlines():
            wanted = " ".join(line.split())
            assert any(wanted in each for each in lines), f"{block.page}: {wanted!r} is not in\n{self.printed}"

    def _toml(self, block: Block) -> None:
        tomllib.loads(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _figure(self, block: Block) -> None:
        """Nothing to run."""

    @contextlib.contextmanager
    def _printing(self) -> Iterator[None]:
        self.output.readouterr()
        yield
        self.printed = self.output.readouterr().out
