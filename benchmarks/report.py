"""What a report of a thousand layers takes: bytes, seconds to make and to open, elements in the browser.

``python -m benchmarks.report`` also draws docs/report.png.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnx
from playwright.sync_api import Browser

from benchmarks.networks import file  # puts the tests on the path
from benchmarks.timing import Row, in_turns
from chromium import chromium, opened
from deep import cut, deep, log
from onnxmorph.analysis import analyze
from onnxmorph.report.page import document, page, subjects
from onnxmorph.structure import Structure
from onnxmorph.surgery import scale, shrink

PICTURE = Path(__file__).parents[1] / "docs" / "report.png"
SMALL, LARGE = 21, 1001  # layers
MOST = 3.0  # megabytes
ROUNDS = 5


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {layers: written(layers, folder) for layers in (SMALL, LARGE)}
        made = in_turns(
            {"report": lambda: written(LARGE, folder), "analysis": lambda: analyze(folder / f"{LARGE}.onnx").costs}, 3
        )
        with chromium() as browser:
            taken, elements = looked_at(browser, files)
        size = files[LARGE].stat().st_size / 1e6
    what = f"{LARGE:,} layers"
    return [
        Row(f"{what}: the file", size, "a few MB", MOST, unit="MB"),
        Row(f"{what}: from files to the report", made["report"], "analysis alone", made["analysis"], 6.0),
        Row(f"{what}: open and drawn", taken[LARGE], f"{SMALL} layers", taken[SMALL], 3.0),
        Row(f"{what}: elements in the browser", elements[LARGE], f"{SMALL} layers", elements[SMALL], 4.0, unit=""),
    ]


def written(layers: int, folder: Path) -> Path:
    """A report of a structure and a log; the network and these are made once."""
    model, structure, logged = (folder / f"{layers}.{kind}" for kind in ("onnx", "json", "csv"))
    if not model.exists():
        onnx.save(deep(layers), model)
        cut(analyze(model)).save(structure)
        log(Structure.load(structure), logged)
    path = folder / f"{layers}.html"
    path.write_text(page(document(subjects([model, structure, logged]))), encoding="utf-8")
    return path


def looked_at(browser: Browser, files: dict[int, Path]) -> tuple[dict[int, float], dict[int, int]]:
    """Median seconds until a file is open and drawn, in turns, and its elements then."""
    taken: dict[int, list[float]] = {layers: [] for layers in files}
    elements = {}
    for number in range(ROUNDS + 1):
        for layers, path in files.items():
            start = time.perf_counter()
            with opened(browser, path) as found:
                found.page.locator(".chart svg").first.wait_for()
                taken[layers] += [time.perf_counter() - start] if number else []  # the first round warms up
                elements[layers] = found.page.evaluate("document.getElementsByTagName('*').length")
    return {layers: median(each) for layers, each in taken.items()}, elements


def picture() -> Path:
    """The report of ResNet-18 without training, shrunk and multiplied to half its FLOPs, as it is first seen."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = file("resnet18", folder)
        ways: dict[str, Callable[..., object]] = {"shrunk": shrink, "multiplied": scale}
        for kind, way in ways.items():
            way(model, budget="flops=50%").structure.save(folder / f"{kind}.json")  # type: ignore[attr-defined]
        paths = [model, *(folder / f"{kind}.json" for kind in ways)]
        (folder / "report.html").write_text(page(document(subjects(paths))), encoding="utf-8")
        with chromium() as browser, opened(browser, folder / "report.html") as found:
            found.page.locator(".chart svg").first.wait_for()
            found.page.screenshot(path=PICTURE)
    return PICTURE


if __name__ == "__main__":
    print(f"written: {picture()}")
