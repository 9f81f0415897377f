"""The registry of networks that are hard to cut.

A network is a PyTorch module (exported by the product's own converter, and where asked by TorchScript) or an
ONNX model written by hand. With it stand the widths of the groups that a person would find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from torch import nn

from nets import Example, net
from onnxmorph.converters.torch import export

MODULES: dict[str, Callable[[], Example]] = {}


class Tokens(tuple[int, ...]):
    """The shape of an input of whole numbers, all 0 or 1."""

    def __new__(cls, *shape: int) -> Tokens:
        return super().__new__(cls, shape)


@dataclass(frozen=True)
class Structure:
    """A network, and what analysis must find.

    ``widths`` are those of the groups, ascending; ``removable`` the least fraction of the parameters that may go.
    ``stays`` are the codes of what is fixed beyond graph inputs, outputs, positions and what is tied to them.
    """

    name: str
    build: Callable[[], ir.Model]
    widths: tuple[int, ...]
    removable: float = 0.95
    stays: str = ""


STRUCTURES: dict[str, Structure] = {}


def _enter(structure: Structure) -> None:
    if structure.name in STRUCTURES:
        raise ValueError(f"two structures are called {structure.name!r}")
    STRUCTURES[structure.name] = structure


def module(
    name: str, *shapes: Sequence[int], widths: Sequence[int], removable: float = 0.95, stays: str = ""
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register a PyTorch module class or factory; ``shapes`` are those of its example inputs."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        net(name, *shapes, registry=MODULES)(build)
        drawn = MODULES[name]

        def example() -> Example:
            module, inputs = drawn()
            whole = [isinstance(shape, Tokens) for shape in shapes]
            return module, tuple((x > 0).long() if w else x for x, w in zip(inputs, whole, strict=True))

        MODULES[name] = example
        _enter(Structure(name, lambda: export(*example()), tuple(sorted(widths)), removable, stays))
        return build

    return register


def graph(
    name: str, *, widths: Sequence[int], removable: float = 0.95, stays: str = ""
) -> Callable[[Callable[[], onnx.ModelProto]], Callable[[], onnx.ModelProto]]:
    """Register an ONNX model written by hand."""

    def register(build: Callable[[], onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
        _enter(Structure(name, lambda: ir.from_proto(build()), tuple(sorted(widths)), removable, stays))
        return build

    return register
