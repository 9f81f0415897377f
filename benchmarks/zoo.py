"""Analysis against ONNX's own checker, on every real graph beside the repository with more than 50 nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from benchmarks.timing import Row, in_turns
from onnxmorph.analysis import analyze_graph
from onnxmorph.model import load

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import zoo

NODES = 50


def run() -> list[Row]:
    if not zoo.PATHS:
        print("no folder ../shared/zoo beside the repository: real exports are left out")
    return [_against_checker(path) for path in zoo.PATHS if len(zoo.weightless(path).graph.node) > NODES]


def _against_checker(path: Path) -> Row:
    model = zoo.zeroed(path)
    graph = load(model)
    tasks = {
        "analysis": lambda: analyze_graph(graph).costs,
        "checker": lambda: onnx.checker.check_model(model, full_check=True),
    }
    taken = in_turns(tasks, rounds=5)
    name = f"{zoo.name_of(path)}, {len(model.graph.node)} nodes"
    return Row(name, taken["analysis"], "onnx.checker, full check", taken["checker"], 1.0)
