"""Analysis against ONNX's own checker on the same file, and against Torch-Pruning on the same network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from benchmarks.networks import IMAGE, file, network
from benchmarks.timing import Row, in_turns
from onnxmorph.analysis import analyze_graph
from onnxmorph.model import load

NETWORKS = ("resnet50", "vit_b_16")


def run() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            path = file(name, Path(folder))
            rows += _against_checker(name, path)
            rows += _against_torch_pruning(name, path)
    return rows


def _against_checker(name: str, path: Path) -> list[Row]:
    model, graph = onnx.load(path), load(path)
    tasks: dict[str, Callable[[], object]] = {
        "analysis": lambda: analyze_graph(graph).costs,
        "load and analyse": lambda: analyze_graph(load(path)).costs,
        "checker": lambda: onnx.checker.check_model(model, full_check=True),
        "load and check": lambda: onnx.checker.check_model(onnx.load(path), full_check=True),
    }
    taken = in_turns(tasks, rounds=5)
    return [
        Row(f"{name}: analysis", taken["analysis"], "onnx.checker, full check", taken["checker"], 1.0),
        Row(
            f"{name}: load and analyse", taken["load and analyse"], "load and full check", taken["load and check"], 1.0
        ),
    ]


def _against_torch_pruning(name: str, path: Path) -> list[Row]:
    import torch_pruning

    module = network(name).eval()

    def groups() -> None:
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=IMAGE)
        list(graph.get_all_groups())

    graph = load(path)
    taken = in_turns({"ours": lambda: analyze_graph(graph), "theirs": groups}, rounds=3)
    return [Row(f"{name}: groups", taken["ours"], "Torch-Pruning, graph and groups", taken["theirs"], 0.1)]
