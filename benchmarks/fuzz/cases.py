"""One case: a seed, mutated, through all that reads it. The same number gives the same case, whatever ran before."""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from rich.console import Console, Group, RenderableType

from benchmarks.fuzz import seeds
from benchmarks.fuzz.documents import altered
from benchmarks.fuzz.models import MEANT
from benchmarks.fuzz.parts import pick, scrambled
from benchmarks.fuzz.sandbox import Breach, Hang, Sandbox
from onnxmorph import Plan, Structure, analyze, expand, latency, shrink
from onnxmorph.algorithm import begin
from onnxmorph.analysis import Analysis
from onnxmorph.errors import OnnxMorphError, RuleError
from onnxmorph.explain import explain
from onnxmorph.importance import load_gradients
from onnxmorph.model import save
from onnxmorph.report import analysed
from onnxmorph.visited import visited

SEED = 20180618  # of all cases
SURFACES = {"model": 0.72, "structure": 0.14, "device": 0.07, "gradients": 0.03, "run": 0.04}


@dataclass(frozen=True)
class Result:
    """What became of a case: ``fine``, a code of ours, or what must not be (``results.BAD``).

    ``seconds`` are of computing, ``peak`` is the most MiB that the process has held so far.
    """

    number: int
    surface: str
    mutation: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    peak: int = 0


@dataclass
class Corpus:
    """The seeds, built once per process."""

    models: list[onnx.ModelProto] = field(default_factory=seeds.models)

    def __post_init__(self) -> None:
        self.structures = list(seeds.structures(self.models))
        self.analyses = {n: analyze(self.models[n]) for n, _ in self.structures}
        self.small = analyze(self.models[0])
        self.devices = seeds.devices(self.small)


Work = tuple[str, bytes, Callable[[], None]]  # the mutation, the content that was mutated, and what is done with it


def prepare(number: int, corpus: Corpus, box: Sandbox) -> tuple[str, Work]:
    """The surface of a case and its work; its files lie in ``in``."""
    rng = np.random.default_rng((SEED, number))
    surface = str(rng.choice(list(SURFACES), p=list(SURFACES.values())))
    return surface, PREPARE[surface](rng, corpus, box)


# -- surfaces --------------------------------------------------------------------------------------


def _model(rng: np.random.Generator, corpus: Corpus, box: Sandbox) -> Work:
    proto = onnx.ModelProto()
    proto.CopyFrom(pick(rng, corpus.models))
    mutation = "bytes" if rng.random() < 0.12 else str(pick(rng, list(MEANT)))
    times = 0 if mutation == "bytes" else int(pick(rng, (1, 1, 1, 2, 3)))
    for each in [mutation, *(pick(rng, list(MEANT)) for _ in range(times - 1))][:times]:
        try:
            MEANT[each](rng, proto, corpus.models)
        except (ValueError, TypeError, OverflowError):  # protobuf takes no such value
            continue
    content = proto.SerializeToString()
    content = scrambled(rng, content) if mutation == "bytes" else content
    path, choice = box.given / "case.onnx", np.random.default_rng(rng.integers(2**32))
    path.write_bytes(content)
    return mutation, content, lambda: through(path, box.out, choice)


def through(path: Path, out: Path, rng: np.random.Generator) -> None:
    """A model through everything: analysis, reports, choosing, cutting at random, growing, writing, reading again."""
    analysis = analyze(path)
    json.dumps(analysed.document(analysis))
    drawn(analysed.analysis(analysis))
    by = pick(rng, ("magnitude", "l1", "bn", "random"))
    try:
        found = shrink(analysis, budget="params=70%", by=by, allow_empty=bool(rng.integers(2)))
        written(found.model, found.structure, out)
    except OnnxMorphError as e:
        if isinstance(e, RuleError) or e.code not in ("budget-reach", "topology-output"):
            raise
    for group in analysis.groups[:1]:
        explain(analysis, group.id)
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in analysis.groups:
        live = int(rng.integers(0 if rng.random() < 0.3 else 1, group.width + 1))
        copies[group.start + 1 + rng.permutation(group.width)[live:]] = 0
    cut = shrink(analysis, Structure.of(analysis, copies))
    written(cut.model, cut.structure, out)
    if rng.random() < 0.3:
        wide = expand(analysis, cut.structure, "params=120%")
        written(wide.model, wide.structure, out)


def drawn(parts: list[RenderableType]) -> None:
    """A report, on no terminal."""
    Console(file=io.StringIO(), width=80).print(Group(*parts))


def written(model: Any, structure: Structure, out: Path) -> None:
    """What was made can be written and read, and costs what the structure says; else AssertionError."""
    save(model, out / "small.onnx")
    structure.save(out / "s.json")
    try:
        again = analyze(out / "small.onnx")
    except OnnxMorphError as e:
        raise AssertionError(f"what was written cannot be read: {e}") from e
    wanted, found = structure.costs["after"]["params"], again.count()["params"]
    assert wanted == found, f"{found} parameters, not {wanted}"
    assert Structure.load(out / "s.json").groups == structure.groups


def _structure(rng: np.random.Generator, corpus: Corpus, box: Sandbox) -> Work:
    n, document = pick(rng, corpus.structures)
    mutation, content = _text(rng, document, lambda tree: json.dumps(tree).encode())
    path, analysis = box.given / "case.json", corpus.analyses[n]
    path.write_bytes(content)
    grow = rng.random() < 0.2
    return mutation, content, lambda: _apply(analysis, path, box.out, grow)


def _apply(analysis: Analysis, path: Path, out: Path, grow: bool) -> None:
    structure = Structure.load(path)
    if grow:
        found = expand(analysis, structure, "params=150%")
    else:
        found = shrink(analysis.graph.model, structure)
    written(found.model, found.structure, out)


def _device(rng: np.random.Generator, corpus: Corpus, box: Sandbox) -> Work:
    mutation, content = _text(rng, pick(rng, corpus.devices), lambda tree: tomli_w.dumps(tree).encode(), plain=True)
    path = box.given / "case.toml"
    path.write_bytes(content)
    return mutation, content, lambda: _timed(corpus.small, path)


def _timed(analysis: Analysis, path: Path) -> None:
    device = latency.load(path)
    analysis = analysis.with_costs(**latency.costs(analysis, device))
    for cost in analysis.costs.values():
        assert np.isfinite(cost.value(analysis.widths)) and np.isfinite(cost.gradient(analysis.widths)).all()


def _gradients(rng: np.random.Generator, corpus: Corpus, box: Sandbox) -> Work:
    analysis = corpus.small
    arrays: dict[str, Any] = {n: np.ones((2, *p.shape), np.float32) for n, p in analysis.parameters.items()}
    mutation = str(pick(rng, ("bytes", "pickle", "shape", "dtype")))
    name = pick(rng, list(arrays))
    if mutation == "pickle":
        arrays[name] = np.array([Path("x"), None], object)
    elif mutation == "shape":
        arrays[name] = np.ones(rng.integers(0, 9, int(rng.integers(4))), np.float32)
    elif mutation == "dtype":
        arrays[name] = arrays[name].astype(pick(rng, ("f8", "i4", "c16", "U3", "M8[s]", "?", "f2", "S1", "V4")))
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    content = scrambled(rng, stream.getvalue()) if mutation == "bytes" else stream.getvalue()
    path = box.given / "case.npz"
    path.write_bytes(content)

    def use() -> None:
        found = shrink(analysis, budget="params=60%", by="taylor", gradients=load_gradients(path))
        written(found.model, found.structure, box.out)

    return mutation, content, use


def _run(rng: np.random.Generator, corpus: Corpus, box: Sandbox) -> Work:
    folder, plan = box.out / "small.run", Plan(budget="flops=80%")
    begin(folder, corpus.models[0], plan)
    if rng.random() < 0.5:
        path, document = folder / "run.json", json.loads((folder / "run.json").read_text())
    else:
        path, document = folder / "round-1" / "shrunk.json", dict(corpus.structures[0][1])
        path.parent.mkdir()
        document["provenance"] = {"round": 1, "visited": "shrunk", "metric": 0.5}
    mutation, content = _text(rng, document, lambda tree: json.dumps(tree).encode())
    path.write_bytes(content)

    def use() -> None:
        begin(folder, corpus.models[0], plan)
        for each in visited(folder, ["flops"]):
            each.row()

    return mutation, content, use


def _text(
    rng: np.random.Generator, document: Any, write: Callable[[Any], bytes], *, plain: bool = False
) -> tuple[str, bytes]:
    """The mutation of a document, and its text."""
    if rng.random() < 0.3:
        return "bytes", scrambled(rng, write(document))
    try:
        return "values", write(altered(rng, document, plain=plain))
    except (TypeError, ValueError, AttributeError, RecursionError):  # the language has no such document
        return "bytes", scrambled(rng, write(document))


PREPARE: dict[str, Callable[[np.random.Generator, Corpus, Sandbox], Work]] = {
    "model": _model, "structure": _structure, "device": _device, "gradients": _gradients, "run": _run,
}  # fmt: skip


# -- running -----------------------------------------------------------------------------------------


def run(number: int, corpus: Corpus, box: Sandbox) -> Result:
    """Do it, within the limits of the sandbox."""
    surface, (mutation, content, work) = prepare(number, corpus, box)
    start, outcome, detail = time.process_time(), "fine", ""
    try:
        with box.watching():
            work()
    except OnnxMorphError as e:
        outcome, detail = "crash" if isinstance(e, RuleError) else e.code, f"{type(e).__name__}: {e}"
    except Hang:
        outcome, detail = "hang", _where()
    except Breach as e:
        outcome, detail = "breach", str(e)
    except MemoryError:
        outcome, detail = "memory", _where()
    except BaseException as e:
        outcome, detail = "crash", f"{type(e).__name__}: {str(e)[:200]} {_where()}"
    seconds = time.process_time() - start
    left = box.traces(content)
    if left:
        outcome, detail = "breach", left
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return Result(number, surface, mutation, outcome, detail[:400], round(seconds, 3), peak)


def _where() -> str:
    """The innermost lines of ours in the traceback of now."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "onnxmorph" in f.filename]
    return " < ".join(ours[::-1][:4])
