"""What the run tells at its end beyond passed and failed (lines that tests recorded as ``table``), and settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before JAX starts, wherever it does: most of what its tests take is compiling networks that run once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("KERAS_BACKEND", "jax")  # read once, when Keras is imported; the other: test_keras_backends.py


def _lines(reporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in reporter.getreports("passed") + reporter.getreports("failed"):
        yield from (str(text) for key, text in report.user_properties if key == "table")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = list(_lines(terminalreporter))
    if lines:
        terminalreporter.section("real graphs of which less than 95 % of the parameters can go, and why")
        for line in lines:
            terminalreporter.write_line(line)
