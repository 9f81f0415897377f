"""The fuzzer in the small, what it once found, and that it would see what must not be (benchmarks/fuzz)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz.cases import Result
from benchmarks.fuzz.models import MEANT
from benchmarks.fuzz.results import BAD, append, read
from benchmarks.fuzz.workers import ALONE, Pool
from onnxmorph import Structure, analyze, shrink
from onnxmorph.errors import OnnxMorphError

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests" / "corpus"
FEW = 240  # cases


def test_mutated_files_end_well_or_in_an_error_of_ours() -> None:
    found: list[Result] = []
    Pool(iter(range(FEW)), found.append).run(1)
    assert sorted(r.number for r in found) == list(range(FEW))
    assert [r for r in found if r.outcome in BAD] == []
    assert {r.surface for r in found} == {"model", "structure", "device", "gradients", "run"}
    assert MEANT.keys() <= {r.mutation for r in found}
    outcomes = Counter(r.outcome for r in found)
    assert outcomes["fine"] > FEW / 8, outcomes  # what is refused at once tests little
    assert len(outcomes) > 10, outcomes


# -- what was found --------------------------------------------------------------------------------

REFUSED = {
    "condition-of-any-shape": "model-shape",
    "constant-of-other-type": "model-unreadable",
    "domain-of-bytes": "model-unreadable",
    "einsum-of-other-type": "model-shape",
    "einsum-of-two-dots": "model-shape",  # onnx's own inference does not come back from it
    "float-in-double-data": "model-tensor",
    "float-in-int32-data": "model-tensor",
    "int64-in-double-data": "model-tensor",
}
NOT_OF_THEIR_OP = {  # and are fixed with that reason
    "attention-of-other-rank", "contrib-attention-of-other-rank", "loss-without-reduction", "quantised-of-other-rank",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.onnx")), ids=lambda p: p.stem)
def test_what_once_broke_something(path: Path) -> None:
    if path.stem in REFUSED:
        with pytest.raises(OnnxMorphError) as e:
            shrink(analyze(path), budget="params=90%")
        assert e.value.code == REFUSED[path.stem]
        return
    analysis = analyze(path)
    refusals = {plan.spec.refuse[0] for plan in analysis.plans if plan.spec.refuse}
    assert ("rule-form" in refusals) == (path.stem in NOT_OF_THEIR_OP)
    for group in analysis.groups:
        for live in (0, 1):
            copies = np.ones(analysis.channels + 1, np.int64)
            copies[group.start + 1 + live : group.start + 1 + group.width] = 0
            try:
                analyze(shrink(analysis, Structure.of(analysis, copies)).model)
            except OnnxMorphError as e:
                assert e.code.startswith("topology")


# -- the fuzzer itself -----------------------------------------------------------------------------

WATCHED = """
import os, pickle, subprocess, sys, time
from pathlib import Path
import benchmarks.fuzz.sandbox as s
s.SECONDS = 0.3

def deeds(box):
    yield "write", lambda: (box.root / "x").write_text("x")
    yield "move", lambda: (box.out / "small.onnx").write_text("x") and os.rename(box.out / "small.onnx", box.root / "y")
    yield "secret", lambda: (box.root / "secret.bin").read_bytes()
    yield "link", lambda: (box.given / "link.bin").read_bytes()
    yield "device", lambda: open("/dev/zero", "rb")
    yield "pickle", lambda: pickle.loads(pickle.dumps(Path("x")))
    yield "process", lambda: subprocess.run(["true"])
    yield "time", lambda: [None for _ in iter(int, 1)]
    yield "memory", lambda: bytearray(3 << 30)
    yield "allowed", lambda: (box.out / "small.onnx").write_text("x")

with s.sandbox() as box:
    box.limit()
    for name, deed in deeds(box):
        try:
            with box.watching():
                deed()
        except BaseException as e:
            print(name, type(e).__name__)
        box.traces(b"")
    (box.out / "small.onnx").write_bytes(s.SECRET)
    print(box.traces(b""))
    (box.out / "other").write_text("x")
    print(box.traces(b""))
    (box.given / "w.bin").write_text("x")
    print(box.traces(b""))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on memory")
def test_the_sandbox_sees_what_must_not_be() -> None:
    command = [sys.executable, "-c", WATCHED]
    environment = {**os.environ, **ALONE, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    breaches = ("write", "move", "secret", "link", "device", "pickle", "process")
    assert found.stdout.splitlines() == [
        *(f"{name} Breach" for name in breaches),
        "time Hang",
        "memory MemoryError",
        "small.onnx holds what lies outside the model's folder",
        "other was left beside the output",
        "files outside the output's folder changed",
    ], found.stderr


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for number in (0, 1):
        append(file, Result(number, "model", "bytes", "fine"))
    with file.open("a") as cut:
        cut.write('{"number": 2, "surf')
    assert list(read(file)) == [0, 1]


def test_a_process_that_dies_is_known_by_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\necho ready\nread line\nexit 3\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    found: list[Result] = []
    Pool(iter([0, 1]), found.append).run(1)
    assert [(r.number, r.outcome) for r in found] == [(0, "died"), (1, "died")]
