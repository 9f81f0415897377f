"""The networks of ``nets`` and ``structures`` as ONNX models: exported, and analysed, once per process."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import onnx
import onnx_ir as ir
import pytest
from torch import Tensor, nn

from nets import NETS
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.converters.torch import export
from structures import STRUCTURES


class Exported(NamedTuple):
    """A network in eval mode, its example inputs and its export. Shared between tests: do not change it."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    model: ir.Model


def grouped(*names: str) -> list[object]:
    """One group per network: with `pytest --dist loadgroup` no network is exported by two processes."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


NAMES = grouped(*sorted(NETS))


@cache
def exported(name: str) -> Exported:
    module, inputs = NETS[name]()
    return Exported(module, inputs, export(module, inputs))


@cache
def _built(name: str) -> tuple[ir.Model, bytes]:
    model = STRUCTURES[name].build()
    return model, ir.to_proto(model).SerializeToString()


@cache
def model_of(name: str) -> ir.Model:
    """Of ``NETS`` or ``STRUCTURES``. Shared between tests: do not change it."""
    return exported(name).model if name in NETS else _built(name)[0]


@cache
def analysis_of(name: str) -> Analysis:
    """Of that model, in the sizes that it says itself."""
    return analyze(model_of(name))


@cache
def sized(name: str, batch: int = 1) -> Analysis:
    """Of one of ``NETS``, in the sizes of its example inputs; its batch axis is dynamic."""
    case = exported(name)
    names = [v.name or "" for v in case.model.graph.inputs]
    return analyze(case.model, {n: (batch, *x.shape[1:]) for n, x in zip(names, case.inputs, strict=True)})


def as_built(name: str) -> onnx.ModelProto:
    """One of ``STRUCTURES``, as it was before anything read it; each time another object."""
    return onnx.ModelProto.FromString(_built(name)[1])
