"""The main job on real data, end to end: ``onnxmorph demo``. See docs/demo.md."""

from __future__ import annotations

import os
from importlib.util import find_spec

from onnxmorph.errors import OnnxMorphError

NEEDS = {"torch": "torch", "onnxscript": "onnxscript", "sklearn": "scikit-learn", "PIL": "pillow"}


def main(
    data: str = "digits",
    data_path: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "out/demo",
    seed: int = 0,
    as_json: bool = False,
) -> int:
    """Train a network, morph it to half its FLOPs, grow it back, and compare with the plain width multiplier.

    Args:
        data: ``digits`` (8×8, comes with scikit-learn) or ``cifar10`` (32×32×3).
        data_path: for ``cifar10``: an npz of JPEG bytes, described in docs/demo.md.
        out: folder for the models, ``structure.json`` and ``table.csv``; made where it is missing.
        seed: of weights and batches; the same seed gives the same structure.
        as_json: one JSON object on stdout in place of tables. Progress goes to stderr in either case.

    Returns:
        the exit code, 0.

    Raises:
        OnnxMorphError: a package or the data is missing, the data cannot be read, or two things that must agree do not.
        OutputError: `out` cannot be written.
    """
    missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if missing:
        message = f"the demo needs {', '.join(missing)}; install them with: pip install 'onnxmorph[demo]'"
        raise OnnxMorphError(message, code="demo-missing")
    from onnxmorph.adapters.demo.recipe import recipe_for
    from onnxmorph.adapters.demo.run import run

    return run(recipe_for(data), data_path, out, seed, as_json)
