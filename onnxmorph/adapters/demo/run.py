"""One run of the demo: all phases in order, the table, the files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from onnxmorph import report
from onnxmorph.adapters.demo.algorithm import FILES, Found, morph, multiply_widths, train_seed
from onnxmorph.adapters.demo.images import read_images
from onnxmorph.adapters.demo.job import Job, show
from onnxmorph.adapters.demo.recipe import Recipe
from onnxmorph.adapters.demo.table import as_csv, as_table, measure, verdict
from onnxmorph.adapters.demo.training import deterministic
from onnxmorph.budget import Budget
from onnxmorph.errors import OnnxMorphError, OutputError
from onnxmorph.files import alone, scratch, write_text

SAME = 1e-5  # relative: a torch module and the ONNX file that belongs to it
NEAR = 0.02  # of the budget: at most so much is left over
TABLE = "table.csv"  # appears last: where it is of this run, all is


def run(
    recipe: Recipe, data_path: str | os.PathLike[str] | None, out: str | os.PathLike[str], seed: int, as_json: bool
) -> int:
    """Do it all; see `onnxmorph.adapters.demo.main`. The files appear in `out` together, at the end."""
    target = _folder(Path(out))
    images = read_images(recipe, data_path, target)
    with alone(target), deterministic(recipe.threads), scratch(target) as new:
        job = Job(recipe, images, new, seed, Console(quiet=as_json))
        show(job, *_plan(job))
        document = _compare(job)
        files = sorted(p.name for p in job.out.glob("[!.]*"))
        for name in sorted(files, key=lambda name: name == TABLE):
            os.replace(job.out / name, target / name)
    show(job, "", f"Written to {target}: {', '.join(files)}.")
    if as_json:
        print(json.dumps({**document, "out": str(target), "files": files}, indent=1))
    if document["failed"]:
        raise OnnxMorphError(f"the demo's own checks failed: {'; '.join(document['failed'])}", code="demo-check")
    return 0


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with scratch(out):
            return out
    except OSError as e:
        raise OutputError(f"{out}: cannot be written ({e.strerror}); choose another --out", code="output") from None


def _plan(job: Job) -> Iterator[str]:
    recipe, images = job.recipe, job.images
    part = "" if recipe.data == "digits" else " (a part of the data set and few epochs, to bound the time)"
    yield (
        f"{recipe.data}: {len(images.train):,} images to train on, {len(images.test):,} to test on{part}; "
        f"{recipe.lasts}."
    )
    yield (
        f"Epochs: {recipe.seed_epochs} for the seed, {recipe.morph_epochs} with the penalty, {recipe.tune_epochs} "
        f"afterwards. Both width multipliers get the same {recipe.total_epochs}."
    )


def _compare(job: Job) -> dict[str, Any]:
    """All phases; what ``--json`` prints."""
    module, seed = train_seed(job)
    found = morph(job, module)
    omega = multiply_widths(job, module, seed)
    files = {name.format(half=f"{omega:.2f}"): job.out / file for name, file in FILES.items()}
    rows = measure(files, job.images, job.recipe.latency_batch, job.recipe.latency_rounds)
    write_text(as_csv(rows), job.out / TABLE)
    _, _, tuned, retrained, half, full = rows
    sentences = [verdict(one, other, len(job.images.test)) for one, other in ((tuned, half), (retrained, full))]
    show(job, "", as_table(rows, job.recipe.latency_batch), "", *sentences)
    worst = max(job.differences.values())
    show(job, f"PyTorch and ONNX Runtime agree: they differ by {worst:.1e} at most, relative.")
    return {
        "data": job.recipe.data,
        "seed": job.seed,
        "recipe": asdict(job.recipe),
        "table": [asdict(row) for row in rows],
        "verdict": sentences,
        "budget": {"budget": job.recipe.budget, "reached": found.share},
        "widths": {g.id: [g.width, len(g.keep)] for g in found.structure.groups},
        "verification": report.verification_document(found.verification),
        "torch_difference": job.differences,
        "failed": list(_failures(job, found, worst)),
    }


def _failures(job: Job, found: Found, worst: float) -> Iterator[str]:
    limit = Budget.parse(job.recipe.budget).limits[0].amount
    if not limit * (1 - NEAR) <= found.share <= limit:
        yield f"{found.share:.2%} of the FLOPs are left, the budget was {job.recipe.budget}"
    if not found.verification.ok:
        yield f"the shrunk network differs from the masked one by {found.verification.difference:.1e}"
    if worst > SAME:
        yield f"PyTorch and ONNX Runtime differ by {worst:.1e}"
