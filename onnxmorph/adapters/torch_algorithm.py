"""The whole algorithm over a PyTorch module: every round trains the user's own module, resized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from torch import Tensor, nn

from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_resize import Hook, load_weights, resize, tensors, unwrapped
from onnxmorph.algorithm import Train
from onnxmorph.converters.torch import export
from onnxmorph.errors import RunError, StructureError
from onnxmorph.rounds import Round, Trained

Result = tuple[Morph | None, float | None]
TorchTrain = Callable[[nn.Module, Round], Result]


def trains(
    module: nn.Module, example_inputs: Tensor | Sequence[Tensor], on_resize: Hook | None = None
) -> Callable[[TorchTrain], Train]:
    """A decorator that makes a train function of one that trains a module.

    >>> @trains(network, images[:2])                                                # doctest: +SKIP
    ... def train(module, round):
    ...     optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    ...     morph = None if round.last else Morph(module, images[:2], optimizer, round.budget, steps=1000)
    ...     ...                                                                     # the loop that there is
    ...     return morph, accuracy(module)

    The function gets a copy of `module` with the widths and weights of the round, on the same device, and trains it in
    place. It returns its `Morph`, None in the last round, and how good the module is, a number or None. Groups that
    `Morph` locks keep their widths in expanded networks, too. What the budget still asks for in the end is met by
    `Morph.finish`.

    Args:
        module: as the run begins; its parameters have the names of the run's ONNX model, which gives the weights.
        example_inputs: ``forward``'s positional tensors, the same that `Morph` is given.
        on_resize: see `resize`.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)

    def made(train: TorchTrain) -> Train:
        def trained(round: Round) -> Trained:
            own = module_of(module, round, on_resize)
            found: Any = train(own, round)  # by a person
            match found:
                case (None | Morph() as morph, metric):
                    pass
                case _:
                    message = f"the train function gave {type(found).__name__}; return the Morph, or None, and a metric"
                    raise RunError(message, code="train-result")
            if morph is not None:
                morph.finish()
            device = next(own.parameters()).device
            model = export(own, tuple(each.to(device) for each in inputs))
            return Trained(model, None if morph is None else morph.structure(), metric)

        return trained

    return made


def module_of(module: nn.Module, round: Round, on_resize: Hook | None = None) -> nn.Module:
    """The module of a round: with the widths of its model, and the weights.

    Args:
        module: as the run began.
        round: says how it grew since.
        on_resize: see `resize`.

    Raises:
        StructureError: the round's model is of another module.
    """
    own = copy.deepcopy(unwrapped(module))
    for structure in round.grown:
        own = resize(own, structure, on_resize)
    model = ir.load(round.model)
    if not model.graph.initializers.keys() & tensors(own).keys():
        message = f"no parameter of {round.model} is in the module; begin the run with the module's own export"
        raise StructureError(message, code="structure-module")
    load_weights(own, model)
    return own
