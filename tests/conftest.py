"""What all tests share: the end of the run tells what they recorded as ``table``, and work is not done twice."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from torchlib import read_once


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Not all of a long text: names go from process to process, and one of 20 MB takes ten seconds and 2 GB."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None


def pytest_collection_finish() -> None:
    """What is loaded by now stays: a million objects that the collector need not walk through again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def fast_exports() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if "torch" in sys.modules:
            read_once(patch)
        yield


def _lines(reporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in reporter.getreports("passed") + reporter.getreports("failed"):
        yield from (str(text) for key, text in report.user_properties if key == "table")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(_lines(terminalreporter))
    if lines:
        terminalreporter.section("real graphs of which less than 95 % of the parameters can go, and why")
        for line in lines:
            terminalreporter.write_line(line)
