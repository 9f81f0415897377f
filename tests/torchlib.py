"""PyTorch's exporter reads the source of each of its operators for every export, a third of all that it does."""

from __future__ import annotations

from functools import cache

import pytest


def read_once(patch: pytest.MonkeyPatch) -> None:
    """Have it read them once."""
    from torch.onnx._internal.exporter._registration import onnxscript_apis

    patch.setattr(onnxscript_apis, "get_torchlib_ops", cache(onnxscript_apis.get_torchlib_ops))
