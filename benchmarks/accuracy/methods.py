"""The ways to a network of a certain cost. Each gets a fresh network and as many epochs as any other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from benchmarks.accuracy.experiment import Method, Recipe
from benchmarks.accuracy.fitting import Fit, new_optimizer
from onnxmorph import scale
from onnxmorph.adapters.torch import Morph, load_weights, resize
from onnxmorph.analysis import analyze
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.penalty import _mean_one
from onnxmorph.structure import Structure
from onnxmorph.surgery import expand

Trained = tuple[nn.Module, Structure | None]


def costs(module: nn.Module, inputs: torch.Tensor) -> Mapping[str, float]:
    """Counted anew from the module as it stands."""
    return analyze(export(copy.deepcopy(module).eval(), (inputs,))).count()


def fresh(module: nn.Module) -> nn.Module:
    """The same layers with their first weights drawn anew."""
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module


def width(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> Trained:
    """All widths times one number, trained from scratch."""
    structure = None
    if method.target != "flops=100%":
        inputs = fit.data.test[:2]
        round_to = method.options.get("round_to", 1)
        structure = scale(export(copy.deepcopy(module).eval(), (inputs,)), method.target, round_to=round_to).structure
        module = fresh(resize(module, structure))
    fit.go(module, new_optimizer(module, recipe), recipe.epochs)
    return module, structure


@contextmanager
def prices(how: str):
    """All channels cost the same, for the ablation; or what they cost."""
    if how == "real":
        yield
        return

    def equal(analysis: Any, limits: Any, widths: Any, prunable: Any) -> Any:
        return _mean_one(np.where(prunable, 1.0, 0.0), np.where(prunable, widths, 0))

    with patch("onnxmorph.controller.prices", equal):
        yield


def morph(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> Trained:
    """The penalty over the first part of the epochs, then the small network trains on; widened again where asked."""
    options = dict(method.options)
    until, first = options.pop("until", 0.6), options.pop("first", 0.0)
    growth, init, how = options.pop("expand", None), options.pop("init", "preserve"), options.pop("prices", "real")
    inputs, used = fit.data.test[:2], 0
    optimizer = new_optimizer(module, recipe)
    if first:
        used = round(first * recipe.epochs)
        fit.go(module, optimizer, used)
    epochs = round((until - first) * recipe.epochs)
    with prices(how):
        found = Morph(module, inputs, optimizer, method.target, steps=fit.steps(epochs), **options)
        fit.go(module, optimizer, epochs, found)
        found.finish()
    used, structure = used + epochs, found.structure()
    if growth:
        wide = expand(export(copy.deepcopy(module).eval(), (inputs,)), structure, growth, init=init)
        structure = wide.structure
        module = resize(module, structure)
        load_weights(module, wide.model)
    else:
        module = resize(module, structure)
    optimizer = new_optimizer(module, recipe)
    fit.go(module, optimizer, recipe.epochs - used)
    return module, structure


def scratch(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> Trained:
    """The structure that the penalty found, with weights drawn anew, for all the epochs again."""
    learner = Fit(recipe, fit.data, int(fit.rng.initial_seed()), fit.curve)
    found, _ = morph(copy.deepcopy(module), method, recipe, learner)
    module, fit.before = fresh(found), learner.epoch
    fit.go(module, new_optimizer(module, recipe), recipe.epochs)
    return module, None


def torch_pruning(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> Trained:
    """Torch-Pruning's own steps: sparse learning, one global pruning to the target, training on."""
    import torch_pruning as tp

    options = dict(method.options)
    until, pruner_name = options.pop("until", 0.6), options.pop("pruner", "GroupNormPruner")
    sparse = options.pop("sparse", True)
    inputs = fit.data.test[:2]
    importance = {
        "BNScalePruner": tp.importance.BNScaleImportance,
        "GroupNormPruner": tp.importance.GroupMagnitudeImportance,
        "MagnitudePruner": tp.importance.GroupMagnitudeImportance,
    }[pruner_name]()

    def pruner(of: nn.Module, ratio: float) -> Any:
        kept = [m for m in of.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
        kind = getattr(tp.pruner, pruner_name)
        return kind(
            of, inputs, importance, global_pruning=True, pruning_ratio=ratio, max_pruning_ratio=0.9,
            ignored_layers=kept, **options,
        )  # fmt: skip

    optimizer = new_optimizer(module, recipe)
    learner = pruner(module, 0.5)
    if sparse:
        learner.update_regularizer()
    epochs = round(until * recipe.epochs)
    fit.go(module, optimizer, epochs, before_step=learner.regularize if sparse else None)
    limits = Budget.parse(method.target).absolute(analyze(export(copy.deepcopy(module).eval(), (inputs,))))
    low, high = 0.0, 0.95  # the least ratio whose counted cost is within the target
    for _ in range(12):
        middle = (low + high) / 2
        trial = copy.deepcopy(module)
        pruner(trial, middle).step()
        met = all(costs(trial, inputs)[name] <= most for name, most in limits.items())
        low, high = (low, middle) if met else (middle, high)
    pruner(module, high).step()
    fit.go(module, new_optimizer(module, recipe), recipe.epochs - epochs)
    return module, None


METHODS: dict[str, Callable[[nn.Module, Method, Recipe, Fit], Trained]] = {
    "width": width,
    "morph": morph,
    "scratch": scratch,
    "torch-pruning": torch_pruning,
}
