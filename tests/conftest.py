"""What the run tells at its end beyond passed and failed: the lines that tests recorded as ``table``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


def _lines(reporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in reporter.getreports("passed") + reporter.getreports("failed"):
        yield from (str(text) for key, text in report.user_properties if key == "table")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(_lines(terminalreporter))
    if lines:
        terminalreporter.section("real graphs of which less than 95 % of the parameters can go, and why")
        for line in lines:
            terminalreporter.write_line(line)
