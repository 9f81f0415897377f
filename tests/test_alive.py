"""The files of the original MorphNet lead to the channels that its training kept, in a network of any exporter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxmorph
from onnxmorph.alive import from_alive, load_alive
from onnxmorph.errors import StructureError
from tiny import model, node, value, weight

IMAGES, SCORES = value("x", ["n", 3, 6, 6]), value("y", ["n", 5, 6, 6])
# Convolution, norm, convolution, an addition of what went in, and a last one whose channels are an output.
ONE, TWO, LAST = (1.0, 1e-4, 0.9, 1e-5, 0.8, 0.7), (1e-3, 0.6, 1e-5, 0.5), 5
TEXT = '{\n  "net/last/Conv2D": 5,\n  "net/one/Conv2D": 4,\n  "net/two/Conv2D": 2\n}'  # as json.dumps writes it there


def norm(name: str, scales: tuple[float, ...]) -> list[onnx.TensorProto]:
    rest = {"beta": 0.1, "moving_mean": 0.0, "moving_variance": 1.0}
    numbers = {"gamma": np.array(scales), **{leaf: np.full(len(scales), number) for leaf, number in rest.items()}}
    return [numpy_helper.from_array(v.astype(np.float32), f"net/{name}/{leaf}") for leaf, v in numbers.items()]


def network(kernels: str = "OIHW") -> onnx.ModelProto:
    """``two`` reads ``one``; both were normalised. Kernels of another layout are transposed on the way."""
    order = [kernels.index(axis) for axis in "OIHW"]
    back = [order.index(k) for k in range(4)]
    nodes, weights = [], []
    for name, reads, scales, i in (("one", "x", ONE, 3), ("two", "a_one", TWO, len(ONE))):
        shape = np.array((len(scales), i, 3, 3))[back]
        weights += [weight(f"net/{name}/kernel", *shape), *norm(f"{name}/norm", scales)]
        kernel = f"net/{name}/kernel"
        if order != [0, 1, 2, 3]:
            nodes.append(node("Transpose", kernel, f"t_{name}", f"net/{name}/Conv2D", perm=order))
            kernel = f"t_{name}"
        norms = " ".join(f"net/{name}/norm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance"))
        nodes += [
            node("Conv", f"{reads} {kernel}", f"c_{name}", f"{name}_conv", pads=[1, 1, 1, 1]),
            node("BatchNormalization", f"c_{name} {norms}", f"n_{name}"),
            node("Relu", f"n_{name}", f"a_{name}"),
        ]
    nodes.append(node("Conv", "a_two net/last/kernel net/last/bias", "y", "last_conv"))
    weights += [weight("net/last/kernel", LAST, len(TWO), 1, 1), weight("net/last/bias", LAST)]
    return model(nodes, weights, [IMAGES], [SCORES])


def kept(structure: onnxmorph.Structure) -> list[tuple[int, ...]]:
    return [group.keep for group in structure.groups]


@pytest.mark.parametrize("kernels", ["OIHW", "HWIO"])
def test_the_channels_live_whose_scales_training_left(kernels: str, tmp_path: Path) -> None:
    (tmp_path / "alive_1000").write_text(TEXT)
    proto = network(kernels)
    structure = from_alive(proto, tmp_path / "alive_1000")
    assert kept(structure) == [(0, 2, 4, 5), (1, 3)]
    assert structure.provenance["alive"] == json.loads(TEXT) and structure.provenance["wider"] == {}
    again = onnxmorph.Structure.from_json(structure.to_json())
    small = onnxmorph.shrink(proto, again)
    assert onnxmorph.verify(proto, small.model, again).ok
    wide = onnxmorph.expand(proto, again, "flops=100%")
    assert 0.8 < wide.structure.costs["after"]["flops"] / wide.structure.costs["before"]["flops"] <= 1


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ({"net/one/Conv2D": 4}, {}),  # the scope of a parameter
        ({"net/one/Conv2D": 4, "net/two/Conv2D": 4}, {}),
        ({"one_conv": 4}, {}),  # the name of a node
        ({"one/Conv2D": 4}, {}),  # without the scope that all ops have in common
        ({"InceptionV9/Conv2D": 4}, {"InceptionV9/Conv2D": "one_conv"}),
        ({"InceptionV9/Conv2D": 4}, {"InceptionV9/Conv2D": "net/one/kernel"}),
    ],
)
def test_an_op_is_found_by_node_scope_or_name_given(counts: dict[str, int], names: dict[str, str]) -> None:
    assert kept(from_alive(network(), counts, names=names)) == [(0, 2, 4, 5), (0, 1, 2, 3)]


def test_pytorch_names_have_the_same_scopes() -> None:
    proto = network()
    for each in (*proto.graph.initializer, *proto.graph.node):
        each.name = each.name.replace("/kernel", "/weight").replace("/", ".")
    for each in proto.graph.node:
        each.input[:] = [name.replace("/kernel", "/weight").replace("/", ".") for name in each.input]
    assert kept(from_alive(proto, json.loads(TEXT))) == [(0, 2, 4, 5), (1, 3)]


def residual() -> onnx.ModelProto:
    nodes = [
        node("Conv", "x a/kernel", "a", "a"),
        node("Conv", "a b/kernel", "b", "b"),
        node("Add", "a b", "s"),
        node("Conv", "s c/kernel", "y", "c"),
    ]
    weights = [weight("a/kernel", 6, 3, 1, 1), weight("b/kernel", 6, 6, 1, 1), weight("c/kernel", 5, 6, 1, 1)]
    return model(nodes, weights, [IMAGES], [SCORES])


def test_where_ops_share_channels_the_most_live_and_what_must_stay_stays() -> None:
    structure = from_alive(residual(), {"a/Conv2D": 2, "b/Conv2D": 4, "c/Conv2D": 3})
    assert structure.widths.tolist() == [4]
    assert structure.provenance["wider"] == {"a/Conv2D": 4}  # c is an output, and passed over


def test_no_live_channel_takes_the_layer_away() -> None:
    grown = residual()
    grown.graph.initializer.append(weight("d/kernel", 4, 6, 1, 1))
    grown.graph.initializer.append(weight("e/kernel", 5, 4, 1, 1))
    last = grown.graph.node[-1]
    last.output[0] = "main"
    grown.graph.node.extend(
        [
            node("Conv", "s d/kernel", "d", "d"),
            node("Conv", "d e/kernel", "e", "e"),
            node("Add", "main e", "y"),
        ]
    )
    structure = from_alive(grown, {"d/Conv2D": 0})
    small = onnxmorph.shrink(grown, structure)
    assert {n.op_type for n in small.model.graph} == {"Conv", "Add"} and len([*small.model.graph]) == 4
    assert onnxmorph.verify(grown, small.model, structure).ok


def grouped() -> onnx.ModelProto:
    nodes = [node("Conv", "x a/kernel", "a", "a"), node("Conv", "a g/kernel", "g", "g", group=2)]
    weights = [weight("a/kernel", 6, 3, 1, 1), weight("g/kernel", 8, 3, 1, 1), weight("c/kernel", 5, 8, 1, 1)]
    return model([*nodes, node("Conv", "g c/kernel", "y", "c")], weights, [IMAGES], [SCORES])


@pytest.mark.parametrize(
    ("proto", "counts", "code", "says"),
    [
        (network(), {"net/one/Conv2D": 7}, "alive-count", "7 live channels in the file, and 6 in the model"),
        (network(), {"net/uno/Conv2D": 4}, "alive-name", "near names are .*net/two/kernel.* names="),
        (network(), {"norm/Conv2D": 4}, "alive-name", "not one layer has its scope"),
        (network(), {"Conv2D": 4}, "alive-name", "no node is called 'Conv2D'"),
        (grouped(), {"g/Conv2D": 4}, "alive-count", "several groups of channels"),
    ],
)
def test_what_does_not_fit_is_an_error(proto: onnx.ModelProto, counts: dict[str, int], code: str, says: str) -> None:
    with pytest.raises(StructureError, match=says) as caught:
        from_alive(proto, counts)
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "[1]", '{"a": -1}', '{"a": true}', '{"a": 1.5}', '{"a": [1, 0]}', "[" * 100_000])
def test_a_file_of_something_else_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "alive_0").write_text(text)
    with pytest.raises(StructureError, match="alive_0") as caught:
        load_alive(tmp_path / "alive_0")
    assert caught.value.code == "alive"
    with pytest.raises(StructureError, match="alive_1"):
        load_alive(tmp_path / "alive_1")


def test_the_model_stays_as_it_was() -> None:
    proto = network()
    before = proto.SerializeToString()
    from_alive(proto, json.loads(TEXT))
    assert proto.SerializeToString() == before
