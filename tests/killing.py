"""A program that kills work at its every touch of a folder, and says what stands there then; see test_files.py.

    killing.py WORK FOLDER FIRST STEP

It forks, which needs a process without threads of its own.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import onnx

from functions import chosen
from onnxmorph import Plan, analyze, morph, shrink, weights
from tiny import convnet, mlp, save

Work = Callable[[], object]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TORN = 20  # bytes: what then stands of a file that is being written
TOUCHES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def _kill_at(touch: int, folder: Path, torn: bool) -> None:
    """Kill this process before its n-th touch of the folder, or in the middle of what it writes next."""
    seen = count(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        path = arguments[0] if arguments else None
        writes = event == "open" and int(str(arguments[2])) & WRITES
        ours = isinstance(path, str | Path) and str(path).startswith(str(folder))
        if ours and (event in TOUCHES or writes) and next(seen) == touch:
            if not torn:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (TORN, TORN))

    sys.addaudithook(watch)


def forked(work: Work, touch: int = 0, folder: Path = Path(), torn: bool = False) -> bool:
    """Do some work in a process of its own; whether it was killed on the way."""
    if (child := os.fork()) == 0:
        try:
            _kill_at(touch, folder, torn)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ), code
    return code != 0


def points(first: int, step: int) -> Iterator[tuple[int, bool]]:
    """Touches; at each the kill comes at once, or in the middle of what is written: both in turn, or both."""
    for i, touch in enumerate(count(first, step)):
        yield from [(touch, True), (touch, False)] if step == 1 else [(touch, i % 2 == 0)]


def files(folder: Path) -> dict[str, bytes]:
    """What stands there, but for folders of files that are not whole yet, and the lock."""
    every = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in every if "/." not in str(path)}


def killed_shrinking(root: Path, first: int, step: int) -> int:
    """A shrunk model takes the place of another; both keep their weights beside them."""
    weights.SINGLE_FILE = weights.GATHERED = 0
    net, folder = save(convnet(), root / "net.onnx"), root / "out"

    def work(budget: str) -> Work:
        def done() -> None:
            small = shrink(analyze(net), budget=budget)
            small.save(folder / "m.onnx")
            small.structure.save(folder / "s.json")

        return done

    def read() -> tuple[bytes, bytes]:
        return onnx.load(folder / "m.onnx").SerializeToString(), (folder / "s.json").read_bytes()

    folder.mkdir()
    forked(work("flops=70%"))
    new = read()
    shutil.rmtree(folder)
    folder.mkdir()
    forked(work("flops=40%"))
    old, before = read(), root / "before"
    shutil.copytree(folder, before)
    assert old[0] != new[0] and "m.onnx.data" in files(folder)
    for touch, torn in points(first, step):
        shutil.rmtree(folder)
        shutil.copytree(before, folder)
        killed = forked(work("flops=70%"), touch, folder, torn)
        found = read()
        assert all(each in two for each, *two in zip(found, old, new, strict=True)), f"torn at touch {touch}"
        if not killed:
            assert found == new and len(list(folder.iterdir())) == 3
            if not torn:
                return touch
        for left in folder.glob(".onnxmorph-*"):
            os.utime(left, (0, 0))
        forked(work("flops=70%"))
        assert read() == new and len(list(folder.iterdir())) == 3, f"left at touch {touch}"
    raise AssertionError


def killed_in_a_run(root: Path, first: int, step: int) -> int:
    """A run is called again after each kill; it ends with the same files, byte by byte."""
    net = save(mlp(), root / "net.onnx")

    def work(folder: Path) -> Work:
        return lambda: morph(chosen.choose, net, Plan(budget="flops=70%", rounds=2, tolerance=0.0), folder)

    forked(work(root / "whole"))
    expected = files(root / "whole")
    assert {"run.json", "round-2/expanded.onnx", "final/final.json", "pareto.csv"} <= expected.keys()
    for touch, torn in points(first, step):
        folder = root / f"killed-{touch}-{torn}"
        killed = forked(work(folder), touch, folder, torn)
        there = files(folder)
        wrong = [name for name, found in there.items() if "pareto" not in name and found != expected[name]]
        assert not wrong, f"torn at touch {touch}: {wrong}"
        if killed:
            forked(work(folder))
        assert files(folder) == expected, f"another run after touch {touch}"
        if not killed and not torn:
            return touch
    raise AssertionError


if __name__ == "__main__":
    what, root, first, step = sys.argv[1:]
    works = {"shrink": killed_shrinking, "morph": killed_in_a_run}
    print(works[what](Path(root).resolve(), int(first), int(step)))
