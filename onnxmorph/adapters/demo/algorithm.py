"""Algorithm 1 of MorphNet (arXiv 1711.06798) once around, and the networks it is compared with."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from onnxmorph import report
from onnxmorph.adapters.demo.job import Job, fit, show, write, write_morphed
from onnxmorph.adapters.demo.network import network
from onnxmorph.adapters.demo.table import width_table
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.structure import Structure
from onnxmorph.surgery import Verification, expand, scale, shrink, verify

# The rows of the table, and the files they are read from.
FILES = {
    "seed": "seed.onnx",
    "shrunk": "shrunk.onnx",
    "shrunk + fine-tuned": "shrunk_finetuned.onnx",
    "expanded + retrained": "expanded_retrained.onnx",
    "width × {half}": "scaled_half.onnx",
    "width × 1": "scaled_full.onnx",
}


@dataclass(frozen=True)
class Found:
    """The structure, the check of the shrunk network, and its FLOPs as a share of the seed's."""

    structure: Structure
    verification: Verification
    share: float


def train_seed(job: Job) -> tuple[nn.Module, Analysis]:
    """The network that all others start from."""
    torch.manual_seed(job.seed)
    module = network(job.images.train.shape[1], job.recipe.widths, job.recipe.depth, job.images.classes)
    fit(job, module, "seed", 0, 1.0)
    seed = write(job, module, "seed.onnx")
    show(job, "", report.op_table(seed), "", report.group_table(seed), "")
    return module, seed


def morph(job: Job, module: nn.Module) -> Found:
    """Train with the penalty, shrink and fine-tune, expand and retrain."""
    whole, recipe = copy.deepcopy(module), job.recipe
    trained = fit(job, whole, "with the penalty", 1, 1.0, recipe.budget)
    assert trained is not None
    trained.finish()
    penalised = write(job, whole, "penalised.onnx")

    found = trained.structure()
    found = replace(found, provenance={**found.provenance, "seed": job.seed, "images": recipe.data})
    found.save(job.out / "structure.json")
    small = shrink(penalised, found)
    small_module = write_morphed(job, small, whole, "shrunk.onnx")
    verification = verify(penalised, job.out / "shrunk.onnx", found)
    share = _flops(analyze(job.out / "shrunk.onnx")) / _flops(penalised)
    show(job, "", *report.morphed(small, Path("shrunk.onnx"), Path("structure.json")), "", width_table(found), "")
    show(job, *report.verification(verification, Path("shrunk.onnx")), "")
    fit(job, small_module, "shrunk, fine-tuning", 2, share)
    write(job, small_module, "shrunk_finetuned.onnx")

    big = expand(penalised, found, recipe.regrow)
    big_module = write_morphed(job, big, whole, "expanded.onnx")
    fit(job, big_module, "expanded, retraining", 2, _flops(analyze(job.out / "expanded.onnx")) / _flops(penalised))
    write(job, big_module, "expanded_retrained.onnx")
    return Found(found, verification, share)


def multiply_widths(job: Job, module: nn.Module, seed: Analysis) -> float:
    """The seed at both budgets by the plain width multiplier, trained for as long; returns the smaller multiplier."""
    scaled = scale(seed, job.recipe.budget)
    half = write_morphed(job, scaled, module, "scaled_half.onnx")
    _train_on(
        job, half, "width multiplier", "scaled_half.onnx", _flops(analyze(job.out / "scaled_half.onnx")) / _flops(seed)
    )
    _train_on(job, copy.deepcopy(module), "seed, longer", "scaled_full.onnx", 1.0)
    return float(scaled.structure.provenance["omega"])


def _train_on(job: Job, module: nn.Module, title: str, file: str, share: float) -> None:
    for phase in (1, 2):
        fit(job, module, title, phase, share)
    write(job, module, file)


def _flops(of: Analysis) -> int:
    return int(of.costs["flops"].value(of.widths))
