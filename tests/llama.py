"""Networks in the shape of LLaMA 3, of any size, whose weights lie in one file beside the model.

Source: Grattafiori et al. 2024 (arXiv 2407.21783), table 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PIECE = 1 << 24  # bytes written at once
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Llama:
    """Sizes of a network: `heads` of queries share `groups` of keys and values, each of `size` positions."""

    layers: int = 1
    width: int = 64
    heads: int = 8
    groups: int = 2
    size: int = 16
    hidden: int = 96
    vocabulary: int = 160
    tokens: int = 8
    dtype: int = TensorProto.FLOAT
    fused: bool = False  # ONNX Runtime's own norms and attention instead of ordinary ops


BILLIONS = Llama(32, 4096, 32, 8, 128, 14336, 128256, 16, TensorProto.FLOAT16)


class _Net:
    def __init__(self, of: Llama) -> None:
        self.of, self.kind = of, helper.tensor_dtype_to_np_dtype(of.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.weights: dict[str, tuple[int, ...]] = {}

    def weight(self, name: str, *shape: int) -> str:
        self.weights[name] = shape
        return name

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, self.kind))

    def sizes(self, *values: int) -> str:
        return self.constant("_".join(map(str, ("sizes", *values))), np.array(values, np.int64))

    def add(self, op: str, *inputs: str, name: str = "", domain: str = "", **attributes: object) -> str:
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], output, domain=domain, **attributes))
        return output

    def linear(self, x: str, name: str, before: int, after: int) -> str:
        return self.add("MatMul", x, self.weight(f"{name}.weight", before, after))

    def norm(self, x: str, name: str) -> str:
        scale = self.weight(f"{name}.weight", self.of.width)
        if self.of.fused:
            return self.add("SimplifiedLayerNormalization", x, scale, epsilon=1e-5, stash_type=1)
        mean = self.add("ReduceMean", self.add("Mul", x, x), axes=[-1])
        root = self.add("Sqrt", self.add("Add", mean, self.number("epsilon", 1e-5)))
        return self.add("Mul", self.add("Div", x, root), scale)

    def rotated(self, x: str) -> str:
        """Rotary positions, ``[batch, heads, tokens, size]``."""
        half = self.of.size // 2
        first = self.add("Slice", x, self.sizes(0), self.sizes(half), self.sizes(3))
        second = self.add("Slice", x, self.sizes(half), self.sizes(self.of.size), self.sizes(3))
        turned = self.add("Concat", self.add("Neg", second), first, axis=-1)
        return self.add("Add", self.add("Mul", x, "cosine"), self.add("Mul", turned, "sine"))

    def repeated(self, x: str) -> str:
        """Every head of keys or values for the queries that share it."""
        of = self.of
        share = of.heads // of.groups
        x = self.add("Unsqueeze", x, self.sizes(2))
        x = self.add("Expand", x, self.sizes(1, of.groups, share, of.tokens, of.size))
        return self.add("Reshape", x, self.sizes(-1, of.heads, of.tokens, of.size))

    def attention(self, q: str, k: str, v: str) -> str:
        of = self.of
        if of.fused:
            at = (q, k, v, "", "", "lengths", "total", "cosine", "sine")
            heads = {"num_heads": of.heads, "kv_num_heads": of.groups, "do_rotary": 1}
            return self.add("GroupQueryAttention", *at, domain=MICROSOFT, **heads)
        q, k, v = (
            self.add("Transpose", self.add("Reshape", x, self.sizes(-1, of.tokens, n, of.size)), perm=[0, 2, 1, 3])
            for x, n in ((q, of.heads), (k, of.groups), (v, of.groups))
        )
        q, k, v = self.rotated(q), self.repeated(self.rotated(k)), self.repeated(v)
        scores = self.add("MatMul", q, self.add("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.add("Add", self.add("Mul", scores, self.number("scale", of.size**-0.5)), "mask")
        x = self.add("MatMul", self.add("Softmax", scores, axis=-1), v)
        x = self.add("Transpose", x, perm=[0, 2, 1, 3])
        return self.add("Reshape", x, self.sizes(-1, of.tokens, of.heads * of.size))

    def layer(self, x: str, name: str) -> str:
        of, y = self.of, self.norm(x, f"{name}.input_layernorm")
        parts = (("q", of.heads), ("k", of.groups), ("v", of.groups))
        q, k, v = (self.linear(y, f"{name}.self_attn.{p}_proj", of.width, n * of.size) for p, n in parts)
        y = self.attention(q, k, v)
        x = self.add("Add", x, self.linear(y, f"{name}.self_attn.o_proj", of.heads * of.size, of.width))
        y = self.norm(x, f"{name}.post_attention_layernorm")
        gate, up = (self.linear(y, f"{name}.mlp.{p}_proj", of.width, of.hidden) for p in ("gate", "up"))
        y = self.add("Mul", self.add("Mul", gate, self.add("Sigmoid", gate)), up)
        return self.add("Add", x, self.linear(y, f"{name}.mlp.down_proj", of.hidden, of.width))

    def positions(self) -> None:
        of = self.of
        speed = 1e4 ** (-np.arange(of.size // 2) / (of.size // 2))
        angle = np.outer(np.arange(of.tokens), speed)
        angle = angle if of.fused else np.concatenate([angle, angle], 1)
        self.constant("cosine", np.cos(angle).astype(self.kind))
        self.constant("sine", np.sin(angle).astype(self.kind))
        if of.fused:
            self.constant("lengths", np.full(1, of.tokens - 1, np.int32))
            self.constant("total", np.array(of.tokens, np.int32))
        else:
            self.constant("mask", np.triu(np.full((of.tokens, of.tokens), -1e4), 1).astype(self.kind))


def write(of: Llama, path: Path, seed: int | None = None) -> Path:
    """Write the network to `path`, and its weights to ``<path>.data``.

    Args:
        of: its sizes.
        path: of the model.
        seed: of random weights; without one the file is sparse: zeros that take no room on the disk.
    """
    net = _Net(of)
    net.positions()
    x = net.add("Gather", net.weight("embed_tokens.weight", of.vocabulary, of.width), "tokens")
    for n in range(of.layers):
        x = net.layer(x, f"layers.{n}")
    x = net.norm(x, "norm")
    net.add("MatMul", x, net.weight("lm_head.weight", of.width, of.vocabulary), name="logits")
    batch: int | str = 1 if of.fused else "batch"
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, [batch, of.tokens])]
    outputs = [helper.make_tensor_value_info("logits", of.dtype, [batch, of.tokens, of.vocabulary])]
    offset, weights = 0, []
    for name, shape in net.weights.items():
        length = prod(shape) * net.kind.itemsize
        tensor = TensorProto(name=name, dims=shape, data_type=of.dtype, data_location=TensorProto.EXTERNAL)
        for key, entry in (("location", f"{path.name}.data"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(entry))
        weights.append(tensor)
        offset += length
    graph = helper.make_graph(net.nodes, "llama", inputs, outputs, [*net.constants.values(), *weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    with Path(f"{path}.data").open("wb") as file:
        file.truncate(offset)
        for shape in net.weights.values() if seed is not None else ():
            seed += 1
            for piece in _drawn(shape, net.kind, seed):
                piece.tofile(file)
    return path


def _drawn(shape: tuple[int, ...], kind: np.dtype[np.generic], seed: int) -> Iterator[NDArray[np.generic]]:
    """Normal numbers by fan-in, and scales about 1; large tensors repeat themselves after some rows."""
    rng, rows = np.random.default_rng(seed), shape[0]
    if len(shape) == 1:
        yield rng.uniform(0.5, 1.5, shape).astype(kind)
        return
    most = max(1, min(rows, PIECE // (shape[1] * kind.itemsize)))
    drawn = (rng.normal(size=(most, shape[1])) / rows**0.5).astype(kind)
    louder = rng.uniform(0.5, 1.5, rows).astype(np.float32)  # rows differ, so that some matter less
    for start in range(0, rows, most):
        part = louder[start : start + most, None]
        yield (drawn[: len(part)] * part).astype(kind)
