"""Commands killed at random moments: what stood there is there still, and calling again ends as it would have.

``python -m benchmarks.kills [--times 50] [--seed 0]`` writes ``results/kills.csv``, a row per kill: the command, when
it was killed and how long it takes when left alone; what stood there then (of ``shrink`` the old or the new result, of
a run its last step); whether that was whole; and whether the same call ended with the same files, byte by byte. In the
first third of the time Python only imports: kills come later. Exit code 1 where something was lost.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.progress import track

RESULTS = Path(__file__).parent / "results"
FUNCTION = """
import onnxmorph

def train(round):
    analysis = onnxmorph.analyze(round.model, bounds=round.bounds)
    if round.last:
        return onnxmorph.Trained(round.model, metric=1.0)
    return onnxmorph.Trained(round.model, onnxmorph.shrink(analysis, budget=round.budget).structure, 0.5)
"""
Files = Mapping[str, str]


@dataclass(frozen=True)
class Kill:
    """One kill, and what came of it."""

    number: int
    command: str
    killed_after: float
    of_seconds: float
    stands: str
    whole: bool
    same_after: bool


def network(path: Path) -> None:
    """Eight layers of 512: 8 MB of weights, which take a while to write."""
    rng = np.random.default_rng(0)
    sizes = [64, *[512] * 8, 10]
    weights = [
        numpy_helper.from_array(rng.normal(size=pair).astype(np.float32), f"w{i}")
        for i, pair in enumerate(pairwise(sizes))
    ]
    nodes, at = [], "x"
    for i in range(len(weights)):
        nodes += [helper.make_node("Gemm", [at, f"w{i}"], [f"h{i}"]), helper.make_node("Relu", [f"h{i}"], [f"r{i}"])]
        at = f"r{i}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 64), (at, 10))]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def files(folder: Path) -> Files:
    """Digests by name, but for what is not whole yet, and the lock."""
    every = (path for path in folder.rglob("*") if path.is_file() and "/." not in str(path.relative_to(folder.parent)))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in every}


def call(command: Sequence[str], after: float | None = None) -> float:
    """Run a command, or kill it after some seconds; how long it took. Raises RuntimeError where it fails by itself."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "onnxmorph.cli", *command], stdout=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.monotonic() - begin


def shrunk(root: Path, budget: str) -> list[str]:
    """The command that shrinks into ``out``."""
    out = root / "out"
    kept = ["-o", str(out / "small.onnx"), "--save-structure", str(out / "s.json")]
    return ["shrink", str(root / "net.onnx"), *kept, "--budget", budget]


def morphed(root: Path, out: Path) -> list[str]:
    """The command that runs two rounds."""
    plan = ["--budget", "flops=80%", "--rounds", "2", "--tolerance", "0"]
    return ["morph", f"{root / 'train.py'}:train", str(root / "net.onnx"), *plan, "--out", str(out)]


def kill_shrink(root: Path, number: int, rng: np.random.Generator, old: Files, new: Files, lasts: float) -> Kill:
    """Over a result that is there already."""
    out = root / "out"
    shutil.rmtree(out)
    shutil.copytree(root / "old", out)
    after = float(rng.uniform(lasts / 3, lasts))
    call(shrunk(root, "flops=60%"), after)
    there = files(out)
    whole = there.keys() == old.keys() and all(there[name] in (old[name], new[name]) for name in there)
    stands = "new" if there == new else "old" if there == old else "model new, structure old" if whole else "torn"
    call(shrunk(root, "flops=60%"))
    return Kill(number, "shrink", round(after, 3), round(lasts, 3), stands, whole, files(out) == new)


def kill_morph(root: Path, number: int, rng: np.random.Generator, expected: Files, lasts: float) -> Kill:
    """In a run, which then goes on."""
    out, after = root / f"run-{number}", float(rng.uniform(lasts / 3, lasts))
    call(morphed(root, out), after)
    there = files(out) if out.exists() else {}
    whole = all(found == expected[name] for name, found in there.items() if "pareto" not in name)
    done = max((name for name in there if name.endswith("ed.json") or "final.json" in name), default="none", key=_order)
    call(morphed(root, out))
    same = files(out) == expected
    shutil.rmtree(out)
    return Kill(number, "morph", round(after, 3), round(lasts, 3), done, whole, same)


def _order(name: str) -> tuple[bool, str, bool]:
    return name.startswith("final"), name.partition("/")[0], "expanded" in name


def kills(times: int, seed: int, root: Path) -> list[Kill]:
    """Half of them while shrinking, half in a run."""
    network(root / "net.onnx")
    (root / "train.py").write_text(FUNCTION)
    out, rng = root / "out", np.random.default_rng(seed)
    out.mkdir()
    call(shrunk(root, "flops=60%"))  # the first call of all takes longest
    lasts = call(shrunk(root, "flops=60%"))
    new = files(out)
    call(shrunk(root, "flops=30%"))
    old = files(out)
    shutil.copytree(out, root / "old")
    whole = call(morphed(root, root / "whole"))
    expected, found = files(root / "whole"), []
    for number in track(range(times), "Killing", disable=not sys.stderr.isatty()):
        if number % 2:
            found.append(kill_morph(root, number, rng, expected, whole))
        else:
            found.append(kill_shrink(root, number, rng, old, new, lasts))
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kills(given.times, given.seed, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "kills.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(found[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, found))
    lost = [each for each in found if not (each.whole and each.same_after)]
    print(f"{len(found)} kills, {len(lost)} with a loss; {RESULTS / 'kills.csv'}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
