"""How long it takes to import the package, against what it is built on: processor seconds of fresh processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from statistics import median

from benchmarks.timing import Row

ROUNDS = 9
BOUND = 2.0
BARE = "import onnx, numpy, networkx"
WITH_IR = f"{BARE}, onnx_ir"  # which brings sympy
NAMES = "from onnxmorph import *"
PROGRAM = "from onnxmorph.cli import app"


def run() -> list[Row]:
    taken: dict[str, list[float]] = {code: [] for code in ("import onnxmorph", NAMES, PROGRAM, BARE, WITH_IR)}
    for n in range(ROUNDS + 1):  # in turns; the first round reads files into memory
        for code, seconds in taken.items():
            spent = _seconds(code)
            seconds += [spent] if n else []
    found = {code: median(seconds) for code, seconds in taken.items()}
    return [
        Row("import onnxmorph", found["import onnxmorph"], "onnx, numpy, networkx", found[BARE], BOUND),
        Row("every public name", found[NAMES], "onnx, numpy, networkx, onnx_ir", found[WITH_IR], BOUND),
        Row("the program, for its help", found[PROGRAM], "onnx, numpy, networkx", found[BARE], BOUND),
    ]


def _seconds(code: str) -> float:
    before = _children()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as installed: compiled once
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return _children() - before


def _children() -> float:
    """Processor seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
