"""PyTorch modules to ONNX, with the names and values of every parameter kept.

``torch.onnx.export`` as it comes folds BatchNorm into convolutions and constants into each other;
names vanish, or stay with other values. Here the graph is exported as it is written, and only
constants that are not parameters (shape arithmetic, mostly) are folded afterwards.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import Tensor, nn

from onnxmorph.converters import record_buffers
from onnxmorph.errors import ConversionError
from onnxmorph.model import save

#: Key in ``model.metadata_props``: JSON, from each further name of a shared tensor to the name in the graph.
TIED_NAMES = "onnxmorph.tied_names"

# Written explicitly: newer defaults of the exporter may be ahead of the installed ONNX Runtime.
_OPSET = 20
_IR_VERSION = 10
_BATCH = 65535  # the most that BatchNorm takes on a GPU: torch.export refuses a size that is freer than an operation


def export(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str] | None = None,
    *,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Export ``module`` in eval mode to an ONNX model with its parameter names, and save it at ``path``.

    The initializers are called as in ``module.state_dict()`` and hold the same values; BatchNorm stays
    a node. What ``forward`` does not read (``num_batches_tracked``, dead parameters) is left out. Of a
    tensor with several names the graph has the first, ``tied_names`` the others.

    ``example_inputs`` are ``forward``'s positional tensors, on the module's device. With
    ``dynamic_batch`` axis 0 of all of them is one free size, whatever it is in the examples.
    The module itself (training flags, device, gradients) stays as it is.

    Raises ConversionError with the code ``torch-inputs``, ``torch-batch``, ``torch-export`` or
    ``torch-onnxscript``, and OutputError where ``path`` cannot be written.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(x, Tensor) for x in inputs):
        raise ConversionError(
            "the example inputs are not tensors; pass a tensor or a tuple of the tensors that forward takes",
            code="torch-inputs",
        )
    if dynamic_batch:
        inputs = _batched(inputs)
    with _eval_mode(module), _silence():
        model = _export_graph(module, inputs, dynamic_batch)
        first_name = _first_names(module)
        _rename_tied(model, first_name)
        _clean(model, set(first_name))
    _copy_weights(model)
    # Every node carries a stack trace with the paths of the machine it was exported on.
    passes.ClearMetadataAndDocStringPass()(model)
    model.ir_version = _IR_VERSION
    present = model.graph.initializers
    tied = {name: first for name, first in first_name.items() if name != first and first in present}
    if tied:
        model.metadata_props[TIED_NAMES] = json.dumps(tied)
    record_buffers(model, {first_name.get(name, name) for name, _ in module.named_parameters()})
    if path is not None:
        save(model, path)
    return model


def tied_names(model: ir.Model) -> dict[str, str]:
    """Return each further name of a shared tensor with the name of its initializer, as ``export`` left it."""
    try:
        names = json.loads(model.metadata_props.get(TIED_NAMES, "{}"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        message = f"metadata {TIED_NAMES!r}: expected names by name; export the model again"
        raise ConversionError(message, code="model-metadata")
    return names


def _batched(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the examples with batch 2 or more: torch.export takes a size of 0 or 1 for a constant."""
    sizes = {x.shape[0] if x.ndim else None for x in inputs}
    if len(sizes) > 1 or None in sizes:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ConversionError(
            f"the example inputs share no batch axis (shapes {shapes}); give all of them the same size "
            "on axis 0, or export with dynamic_batch=False",
            code="torch-inputs",
        )
    return tuple(torch.cat([x, x]) for x in inputs) if sizes == {1} else inputs


def _export_graph(module: nn.Module, inputs: tuple[Tensor, ...], dynamic_batch: bool) -> ir.Model:
    batch = torch.export.Dim("batch", max=_BATCH)
    shapes: tuple[object, ...] | None = tuple({0: batch} for _ in inputs) if dynamic_batch else None
    kinds = {p.kind for p in inspect.signature(module.forward).parameters.values()}
    if shapes is not None and inspect.Parameter.VAR_POSITIONAL in kinds:
        shapes = (shapes,)  # forward(*inputs) is one argument to torch.export
    try:
        # Where opt_einsum is installed, it plans the products of one batch size, which fixes that size.
        with torch.backends.opt_einsum.flags(enabled=False):
            program = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
        _pool_by_mean(program)
        exported = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=_OPSET,
            dynamic_shapes=shapes,  # names the free axis "batch"; without, it is called s77
        )
        if exported is None:
            raise RuntimeError("torch.onnx.export returned no program")
    except ImportError as error:  # torch asks onnxscript for a module named after its own version
        raise ConversionError(
            f"onnxscript does not fit PyTorch {torch.__version__}; upgrade onnxscript ({error})",
            code="torch-onnxscript",
        ) from error
    except Exception as error:  # torch raises many kinds, and documents none
        reason = _reason(error)
        kind = type(module).__name__
        # "Constraints violated" is how torch.export says that a size it was told to leave free is fixed.
        if dynamic_batch and "onstraints violated" in reason:
            raise ConversionError(
                f"{kind} fixes its batch size; make forward independent of it (x.shape[0] or flatten(1) "
                f"in place of a number), or export with dynamic_batch=False ({reason})",
                code="torch-batch",
            ) from error
        raise ConversionError(
            f"PyTorch cannot export {kind}; rewrite the operation it names, in forward ({reason})",
            code="torch-export",
        ) from error
    model: ir.Model = exported.model
    for node in model.graph.all_nodes():  # PyTorch's own graph hangs on this, megabytes of objects
        node.meta.clear()
        for value in node.outputs:
            value.meta.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.meta.clear()
    return model.clone()  # without inputs that were taken out, which the first one still counts


def _pool_by_mean(program: torch.export.ExportedProgram) -> None:
    """Write global average pooling as a mean: after a permute (ConvNeXt) PyTorch's own decomposition
    re-strides the result, which ONNX can only say as a Gather over everything, and channels are lost in it.
    """
    aten = torch.ops.aten
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]:
            with graph.inserting_before(node):
                mean = graph.call_function(aten.mean.dim, (node.args[0], [-2, -1], True))
            mean.meta = dict(node.meta)
            node.replace_all_uses_with(mean, propagate_meta=False)
            graph.erase_node(node)
    program.graph_module.recompile()


def _reason(error: BaseException) -> str:
    """Return the line of torch's message that says most: the innermost cause's, without its advertisement."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _first_names(module: nn.Module) -> dict[str, str]:
    """Map every name in the state dict to the first name of the same tensor."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in module.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }


def _rename_tied(model: ir.Model, first_name: dict[str, str]) -> None:
    """Call a shared tensor by its first name; the exporter keeps the last."""
    for name, value in list(model.graph.initializers.items()):
        first = first_name.get(name, name)
        if first == name:
            continue
        if first in model.graph.initializers:
            value.replace_all_uses_with(model.graph.initializers[first])
            del model.graph.initializers[name]
        else:
            value.name = first


def _clean(model: ir.Model, parameters: set[str]) -> None:
    """Fold every constant computation that reads no parameter, and drop what is unused, in place."""

    def should_fold(node: ir.Node) -> bool | None:
        return False if any(x is not None and x.name in parameters for x in node.inputs) else None

    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=should_fold)
    _drop_zero_biases(model, parameters)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedFunctionsPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)


def _copy_weights(model: ir.Model) -> None:
    """Give the model its own weights: the exporter's are views, and would follow the module's training."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            array = value.const_value.numpy().copy()
            value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=value.name)


def _drop_zero_biases(model: ir.Model, parameters: set[str]) -> None:
    """Undo the zero bias that the exporter gives a convolution without one: it would count as parameters."""
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) < 3:
            continue
        bias = node.inputs[2]
        if bias is None or bias.name in parameters or bias.const_value is None:
            continue
        if not bias.const_value.numpy().any():
            node.resize_inputs(2)


@contextlib.contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule into eval mode, and each back as it was."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what the exporter prints, warns and logs off the terminal; its errors still raise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(disabled)
