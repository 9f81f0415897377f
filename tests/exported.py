"""The networks of ``nets`` as ONNX models, exported once per process."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import onnx_ir as ir
import pytest
from torch import Tensor, nn

from nets import NETS
from onnxmorph.converters.torch import export


class Exported(NamedTuple):
    """A network in eval mode, its example inputs and its export. Shared between tests: do not change it."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    model: ir.Model


# One group per network: with `pytest --dist loadgroup` no network is exported by two processes.
NAMES = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in sorted(NETS)]


@cache
def exported(name: str) -> Exported:
    module, inputs = NETS[name]()
    return Exported(module, inputs, export(module, inputs))
