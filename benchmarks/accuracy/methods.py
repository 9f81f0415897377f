"""The ways to a network of a certain cost. Each gets a fresh network and as many epochs as any other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.accuracy.ablations import ablated, spent
from benchmarks.accuracy.experiment import FOLDER, Method, Recipe
from benchmarks.accuracy.fitting import DEVICE, LAYOUT, Fit, new_optimizer
from onnxmorph import scale, shrink
from onnxmorph.adapters.torch import Morph, gradients, load_weights, resize, resize_optimizer
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.graph import Graph
from onnxmorph.latency import costs, load
from onnxmorph.structure import Structure
from onnxmorph.surgery import expand

DEVICES = FOLDER / "devices"
KEPT = 0.995  # of the mean of a teacher's weights, at every step


def exported(module: nn.Module, fit: Fit) -> Graph:
    """The module as it stands, without the device that it is on."""
    return export(copy.deepcopy(module).cpu().eval(), (fit.data.test[:2].cpu(),))


def widths_of(module: nn.Module, analysis: Analysis) -> NDArray[np.int64]:
    """The widths that a smaller form of an analysed module has, ``[groups]``; groups are named after an axis."""
    sizes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    places = [group.id.rpartition(":") for group in analysis.groups]
    return np.array([sizes[name][int(axis)] for name, _, axis in places])


def placed(module: nn.Module) -> nn.Module:
    """On the device, with its weights laid out as convolutions there want them."""
    return module.to(DEVICE, memory_format=LAYOUT)


def resized(module: nn.Module, structure: Structure, fit: Fit) -> nn.Module:
    """The module in the widths of a structure, which are noted."""
    fit.widths = {group.id: len(group.keep) for group in structure.groups}
    return placed(resize(module, structure))


def fresh(module: nn.Module) -> nn.Module:
    """The same layers with their first weights drawn anew."""
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return module


def width(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> nn.Module:
    """All widths times one number, trained from scratch; with a trained seed as its teacher where asked."""
    teacher, pupil = None, module
    if method.target != "flops=100%":
        analysis = analyze(exported(module, fit))
        if "device" in method.options:
            analysis = analysis.with_costs(**costs(analysis, load(DEVICES / method.options["device"])))
        structure = scale(analysis, method.target, round_to=method.options.get("round_to", 1)).structure
        pupil = fresh(resized(module, structure, fit))
    if method.options.get("distil"):
        learner = Fit(recipe, fit.data, int(fit.rng.initial_seed()), fit.curve)
        learner.go(module, new_optimizer(module, recipe), recipe.epochs)
        teacher, fit.before = module.eval(), learner.epoch
    fit.go(pupil, new_optimizer(pupil, recipe), recipe.epochs, teacher=teacher)
    return pupil


def morph(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> nn.Module:
    """The penalty over the first part of the epochs, then the small network trains on; widened again where asked.

    Several rounds share the epochs of the first part; each shrinks what the one before has widened. Where that is asked
    for, the mean over the last steps of the unshrunk network is the teacher of what comes after.
    """
    options = dict(method.options)
    until, first, rounds = options.pop("until", 0.6), options.pop("first", 0.0), options.pop("rounds", 1)
    growth, init, exact = options.pop("expand", None), options.pop("init", "preserve"), options.pop("exact", False)
    spend, distil = options.pop("spend", "uniform"), options.pop("distil", False)
    if "device" in options:
        options["device"] = DEVICES / options["device"]
    optimizer = new_optimizer(module, recipe)
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(KEPT), use_buffers=True) if distil else None
    fit.go(module, optimizer, round(first * recipe.epochs), average=average)
    go = partial(fit.go, teacher=None if average is None else average.module.eval())
    with ablated(options):
        for n in range(rounds):
            epochs = round((first + (until - first) * (n + 1) / rounds) * recipe.epochs) - fit.epoch
            found = Morph(module, fit.data.test[:2], optimizer, method.target, steps=fit.steps(epochs), **options)
            go(module, optimizer, epochs, found)
            found.finish()
            structure = found.structure()
            if growth:
                with spent(spend, found):
                    wide = expand(exported(module, fit), structure, growth, init=init, exact=exact)
                structure = wide.structure
                module = resized(module, structure, fit)
                load_weights(module, wide.model)
                optimizer = new_optimizer(module, recipe)
            else:
                small = resized(module, structure, fit)
                resize_optimizer(optimizer, module, small, structure)
                module = small
    go(module, optimizer, recipe.epochs - fit.epoch)
    return module


def choose(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> nn.Module:
    """No penalty: train, cut once by the scores of `shrink`, train on."""
    options = dict(method.options)
    epochs, by = round(options.pop("until", 0.6) * recipe.epochs), options.pop("by", "magnitude")
    optimizer = new_optimizer(module, recipe)
    fit.go(module, optimizer, epochs)
    found = None
    if by == "taylor":
        batches = zip(fit.data.train.split(recipe.batch), fit.data.train_labels.split(recipe.batch), strict=True)
        found = gradients(module, lambda m, b: F.cross_entropy(m(b[0]), b[1]), islice(batches, 24))
    structure = shrink(exported(module, fit), budget=method.target, by=by, gradients=found, **options).structure
    small = resized(module, structure, fit)
    resize_optimizer(optimizer, module, small, structure)
    fit.go(small, optimizer, recipe.epochs - epochs)
    return small


def scratch(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> nn.Module:
    """The structure that the penalty found, with weights drawn anew, for all the epochs again."""
    learner = Fit(recipe, fit.data, int(fit.rng.initial_seed()), fit.curve)
    found = morph(copy.deepcopy(module), method, recipe, learner)
    module, fit.before, fit.widths = fresh(found), learner.epoch, learner.widths
    fit.go(module, new_optimizer(module, recipe), recipe.epochs)
    return module


def torch_pruning(module: nn.Module, method: Method, recipe: Recipe, fit: Fit) -> nn.Module:
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
    fit.go(module, optimizer, epochs, before_step=partial(learner.regularize, module) if sparse else None)
    analysis = analyze(exported(module, fit))
    limits = Budget.parse(method.target).absolute(analysis)
    low, high = 0.0, 0.95  # the least ratio whose counted cost is within the target
    for _ in range(12):
        middle = (low + high) / 2
        trial = copy.deepcopy(module)
        pruner(trial, middle).step()
        widths = widths_of(trial, analysis)
        met = all(analysis.costs[name].value(widths) <= most for name, most in limits.items())
        low, high = (low, middle) if met else (middle, high)
    pruner(module, high).step()
    fit.go(module, new_optimizer(module, recipe), recipe.epochs - epochs)
    return module


METHODS: dict[str, Callable[[nn.Module, Method, Recipe, Fit], nn.Module]] = {
    "width": width,
    "morph": morph,
    "choose": choose,
    "scratch": scratch,
    "torch-pruning": torch_pruning,
}
