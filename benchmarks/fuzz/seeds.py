"""Small models that cover every rule, and documents that belong to them: what mutations start from."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxmorph import Bounds, Structure, analyze, latency, shrink
from onnxmorph.analysis import Analysis
from onnxmorph.errors import OnnxMorphError
from onnxmorph.latency.features import kinds
from onnxmorph.latency.kernels import kernels
from onnxmorph.latency.measured import key_of

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from graphs_at_random import random_graph
from rows import ROWS
from tiny import convnet, mlp, model, node, value, weight

LARGEST = 40_000  # bytes of a model
STRUCTURES = 24  # models with structures
RANDOM = 60  # random graphs


def models() -> list[onnx.ModelProto]:
    """All seeds, small ones only."""
    found = [mlp(), convnet(), beside(), called(), branching(), looping()]
    found += [row.network(np.random.default_rng(0)) for row in ROWS]
    for seed in range(RANDOM):
        rng = np.random.default_rng(seed)
        found.append(random_graph(lambda n, rng=rng: int(rng.integers(n)), steps=8))
    return [m for m in found if m.ByteSize() <= LARGEST]


def beside() -> onnx.ModelProto:
    """Weights in a file beside the model."""
    result = mlp()
    for tensor in result.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        size = 4 * int(np.prod(tensor.dims))
        for key, entry in (("location", "w.bin"), ("offset", "64"), ("length", str(size))):
            tensor.external_data.add(key=key, value=entry)
    return result


def called() -> onnx.ModelProto:
    """The layers as functions, of which one calls another."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    inner = helper.make_function("f", "Inner", ["a"], ["b"], [node("Relu", "a", "b")], opsets)
    outer = helper.make_function(
        "f", "Outer", ["a", "w"], ["c"], [node("MatMul", "a w", "b"), node("Inner", "b", "c", domain="f")], opsets
    )
    nodes = [node("Outer", "x a", "r", domain="f"), node("Gemm", "r b", "y")]
    return model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], domains=["f"], functions=[inner, outer])


def branching() -> onnx.ModelProto:
    """An If whose branches read and hold weights."""
    one = helper.make_graph([node("Gemm", "x a", "o")], "one", [], [value("o", ["n", 8])])
    two = helper.make_graph([node("Gemm", "x c", "p")], "two", [], [value("p", ["n", 8])], [weight("c", 4, 8, seed=3)])
    nodes = [node("If", "go", "h", then_branch=one, else_branch=two), node("Gemm", "h b", "y")]
    inputs = [value("x", ["n", 4]), value("go", [], TensorProto.BOOL)]
    return model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], inputs)


def looping() -> onnx.ModelProto:
    """A Loop over a state, and a stack of what it writes."""
    inputs = [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("s", ["n", 8])]
    nodes = [node("Identity", "c", "d"), node("MatMul", "s w", "t"), node("Relu", "t", "u")]
    outputs = [value("d", [], TensorProto.BOOL), value("t", ["n", 8]), value("u", ["n", 8])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    chain = [node("Gemm", "x a", "h"), node("Loop", "often go h", "k z", body=body), node("Gemm", "k b", "y")]
    weights = [weight("a", 4, 8), weight("w", 8, 8, seed=2), weight("b", 8, 3, seed=1)]
    weights.append(helper.make_tensor("often", TensorProto.INT64, [], [5]))
    weights.append(helper.make_tensor("go", TensorProto.BOOL, [], [True]))
    return model(chain, weights)


def structures(among: list[onnx.ModelProto]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Documents, each with the number of the model that it belongs to."""
    count = 0
    for n, proto in enumerate(among):
        if proto.ByteSize() > 8000 or count >= STRUCTURES:
            continue
        try:
            analysis = analyze(proto)
            kept = shrink(analysis, budget="params=60%").structure
        except OnnxMorphError:  # nothing in it can go, or its weights are beside it
            continue
        count += 1
        yield n, json.loads(kept.to_json())
        if count % 4 == 1:
            name = next(iter(analysis.parameters))
            bounded = analyze(proto, bounds=Bounds(keep=[name], min_width={"*": 2}))
            copies = np.ones(bounded.channels + 1, np.int64)
            yield n, json.loads(Structure.of(bounded, copies, method="by hand", locked=[name]).to_json())


def devices(analysis: Analysis) -> list[dict[str, Any]]:
    """Device files: some that ship, and what was measured, of a network and of others."""
    shipped = (files("onnxmorph.devices") / f"{name}.toml" for name in latency.known()[:4])
    found = [tomllib.loads(f.read_text(encoding="utf-8")) for f in shipped]
    own = kernels(analysis)
    for key, names in (("0123456789abcdef", ["*"]), (key_of(analysis, own), [k.name for k in kinds(analysis, own)])):
        coefficients = {name: {"start": 1e-6, "bytes": 1e-11, "work": 1e-12} for name in names}
        runs = [{"widths": [4], "seconds": 1e-4, "spread": 0.01, "kernels": [1e-5, 2e-5]}]
        rates = {"overhead": 1e-5, "median": 0.02, "largest": 0.1, "spread": 0.01}
        where = {"runtime": "1.24", "provider": "CPUExecutionProvider", "threads": 1, "processor": "p"}
        networks = {key: {"name": "m", **rates, "kinds": coefficients, "runs": runs}}
        found.append({"version": 1, "title": "mine", "measured": {**where, "networks": networks}})
    return found
