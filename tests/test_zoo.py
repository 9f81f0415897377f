"""Deletion and prediction on real graphs from both PyTorch exporters, which lie beside the repository."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from laws import TOLERANCE, counted, random_cut
from onnxmorph.analysis import analyze
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink, verify

ZOO = Path(__file__).parents[2] / "shared" / "zoo"

# Keras graphs, recurrent ones and ops that later work covers are not here.
FOLDERS = ("dynamo", "ts", "preserve", "dynbatch")
FAMILIES = (
    "alexnet", "convnext", "densenet", "efficientnet", "espcn", "fcn_resnet", "googlenet", "gpt2", "inception",
    "llama_gqa", "mobilenet", "r3d", "regnet", "resnet", "resnext", "retinanet", "shufflenet", "skresnet",
    "squeezenet", "swin", "unet", "vgg", "vit", "wavenet", "yolov8_like", "cbam",
)  # fmt: skip
HEAVY = (
    "convnext_tiny", "fcn_resnet50", "inception_v3", "r3d_18", "resnet50", "resnext50_32x4d", "retinanet_head_r18",
    "swin_t", "vgg16_bn", "vit_b_16_l3",
)  # fmt: skip


def cases() -> list[Any]:
    """Every export; heavy networks, and DenseNet's other exports, at night."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ZOO / folder).glob("*.onnx.xz")):
            if path.name.startswith(FAMILIES):
                late = _stem(path) in HEAVY or (folder != "dynamo" and "densenet" in path.name)
                marks = [pytest.mark.nightly] if late else []
                found.append(pytest.param(path, id=f"{folder}-{_stem(path)}", marks=marks))
    return found


def _stem(path: Path) -> str:
    return path.name.removesuffix(".onnx.xz")


def skeleton() -> ModuleType:
    """The script beside the graphs that draws their weights again."""
    spec = importlib.util.spec_from_file_location("skeleton", ZOO / "skeleton.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(ZOO.is_dir(), reason="the graphs are there")
def test_the_zoo_is_there() -> None:
    pytest.skip("no folder ../shared/zoo beside the repository: real exports are not tested")


@pytest.mark.parametrize("path", cases())
def test_half_of_every_group_can_go(path: Path) -> None:
    analysis = analyze(skeleton().materialize(path.read_bytes()))
    small = shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(0))))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert counted(small.model) == small.structure.costs["after"]
    assert verify(analysis, small.model, small.structure, samples=1).difference <= TOLERANCE
    assert analysis.removable >= 0.96
