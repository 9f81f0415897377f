"""The report in a real browser: looked at, clicked, searched; nothing on the console, nothing from the network."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from chromium import chromium, opened
from deep import cut, deep, log
from onnxmorph import Structure, analyze
from onnxmorph.report.page import document, page, subjects
from test_report import HOSTILE, hostile
from tiny import save

pytestmark = pytest.mark.xdist_group("browser")

TABS = ("network", "compare", "trade", "costs", "training", "fixed", "removed")
LAYERS = 1001

FAINT = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two structures of a network of a thousand layers; the first has a log and its costs a curve."""
    folder = tmp_path_factory.mktemp("report")
    analysis = analyze(save(deep(LAYERS), folder / "deep.onnx"))
    for seed, name in enumerate(("one.json", "two.json")):
        cut(analysis, seed).save(folder / name)
    log(Structure.load(folder / "one.json"), folder / "log.csv")
    (folder / "table.csv").write_text(
        "network,flops,accuracy\nwidth × 1,1.2e9,0.9\nwidth × 0.5,3e8,0.8\nours,3e8,0.85\n"
    )
    names = ("deep.onnx", "one.json", "log.csv", "two.json", "table.csv")
    path = folder / "report.html"
    path.write_text(page(document(subjects([folder / name for name in names]))), encoding="utf-8")
    return path


def cells(page: Page, label: str, column: int) -> list[str]:
    return (
        page.locator(f"table[aria-label='{label}']")
        .first.locator(f"tbody tr:not(.space) td:nth-child({column})")
        .all_inner_texts()
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_tab_is_drawn(width: int, theme: str, report: Path, browser: Browser, tmp_path: Path) -> None:
    with opened(browser, report, width, theme) as found:
        for tab in TABS:
            found.page.click(f"#tab-{tab}")
            expect(found.page.locator("#panel")).not_to_be_empty()
            found.page.wait_for_function("() => [...document.querySelectorAll('.chart')].every((e) => e.firstChild)")
            assert found.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{tab} is too wide"
            assert found.page.evaluate(FAINT) == []
            assert found.page.evaluate("document.getElementsByTagName('*').length") < 3000
            image = Image.open(io.BytesIO(found.page.screenshot(path=tmp_path / f"{tab}.png")))
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 30
            darkest, lightest = image.convert("L").getextrema()
            assert darkest < 60 and lightest > 180  # type: ignore[operator]


def test_a_thousand_layers_make_a_small_file(report: Path) -> None:
    assert report.stat().st_size < 1_500_000


def test_tables_are_sorted_by_their_headings(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        heads = found.page.locator("table[aria-label=Layers]").first.locator("th")
        first = cells(found.page, "Layers", 1)
        assert first[:2] == ["stage0.down", "stage0.block0.conv1"]
        price = heads.filter(has_text="price")
        price.get_by_role("button").click()
        expect(price).to_have_attribute("aria-sort", "descending")
        assert cells(found.page, "Layers", 1)[0].startswith("stage3.")
        price.get_by_role("button").click()
        expect(price).to_have_attribute("aria-sort", "ascending")
        assert cells(found.page, "Layers", 1)[0] == "head"  # it stays: no price
        price.get_by_role("button").click()
        assert price.get_attribute("aria-sort") is None and cells(found.page, "Layers", 1)[:30] == first[:30]
        heads.first.get_by_role("button").click()
        names = cells(found.page, "Layers", 1)
        assert names[:4] == ["head", "stage0.block0.conv1", "stage0.block0.conv2", "stage0.block1.conv1"]


def test_tables_are_searched_and_hold_every_row(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        table = found.page.get_by_role("region", name="Layers").first
        assert table.get_by_role("table").get_attribute("aria-rowcount") == str(LAYERS + 1)
        assert "head" not in cells(found.page, "Layers", 1)
        table.evaluate("(e) => { e.scrollTop = e.scrollHeight; }")
        expect(table.get_by_text("head", exact=True)).to_be_visible()
        assert table.locator("tbody tr").count() < 60
        found.page.get_by_label("Filter: Layers").first.fill("BLOCK77.")
        assert cells(found.page, "Layers", 1) == ["stage0.block77.conv1", "stage0.block77.conv2"]
        expect(found.page.get_by_role("status").first).to_have_text(f"2 of {LAYERS:,}")


def test_a_click_on_the_drawing_finds_the_layer(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        drawing = found.page.locator(".chart svg").first
        box = drawing.bounding_box()
        assert box is not None
        spot = (round(box["x"] + box["width"] - 20), round(box["y"] + 100))
        found.page.mouse.move(*spot)
        said = re.fullmatch(r"6 layers from (stage3\.block49\d\.conv\d)", found.page.locator("#tip b").inner_text())
        found.page.mouse.click(*spot)
        assert said and found.page.locator("tr.picked td").first.inner_text() == said[1]


def test_tabs_by_keyboard(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        found.page.locator("#tab-network").focus()
        for key, tab in (
            ("ArrowRight", "compare"),
            ("End", "removed"),
            ("ArrowRight", "network"),
            ("ArrowLeft", "removed"),
        ):
            found.page.keyboard.press(key)
            chosen = found.page.get_by_role("tab", selected=True)
            expect(chosen).to_have_id(f"tab-{tab}")
            expect(chosen).to_be_focused()
        found.page.keyboard.press("Tab")
        assert found.page.evaluate(
            "document.activeElement.closest('#panel') !== null || document.activeElement.id === 'panel'"
        )


def test_what_is_shown_can_be_chosen(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        panels = found.page.locator("#panel section h2")
        assert len(panels.all()) == 3
        found.page.get_by_role("button", name="two.json").click()
        assert [name.split("/")[-1] for name in panels.all_inner_texts()] == ["one.json", "table.csv"]
        for name in ("one.json", "table.csv"):
            found.page.get_by_role("button", name=name).click()
        expect(found.page.locator("#panel")).to_have_text("Choose above what to show.")


def test_the_cost_can_be_chosen(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        expect(found.page.locator(".tile.chosen").first).to_contain_text("FLOPs")
        found.page.get_by_label("Cost", exact=True).select_option("params")
        expect(found.page.locator(".tile.chosen").first).to_contain_text("params")
        expect(found.page.locator(".legend").first).to_contain_text("Price of one channel in params")
        found.page.click("#tab-costs")
        expect(found.page.locator("#panel h3").first).to_have_text("params by op")


def test_the_colours_can_be_chosen(report: Path, browser: Browser) -> None:
    with opened(browser, report, theme="dark") as found:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = found.page.evaluate(background)
        found.page.get_by_role("button", name="Light / dark").click()
        assert found.page.evaluate(background) != dark
        found.page.get_by_role("button", name="Light / dark").click()
        assert found.page.evaluate(background) == dark


def test_the_plot_has_the_curve_of_the_width_multiplier(report: Path, browser: Browser) -> None:
    with opened(browser, report) as found:
        found.page.click("#tab-trade")
        expect(found.page.locator("svg .mark")).to_have_count(3)  # what has a metric
        expect(found.page.locator("svg .multiplier")).to_have_count(1)
        found.page.get_by_label("Plot against").select_option("params")
        expect(found.page.locator("svg .mark")).to_have_count(4)  # both structures, and the full network of each
        assert found.page.locator("svg .multiplier").get_attribute("d").count("L") >= 15  # type: ignore[union-attr]
        expect(found.page.locator("svg").first).to_contain_text("×0.5")


def test_names_from_a_model_are_shown_and_not_run(browser: Browser, tmp_path: Path) -> None:
    path = save(hostile(), tmp_path / "<img src=x onerror=alert(2)>.onnx")
    rows = f"step,strength,cost/{HOSTILE},width/{HOSTILE}\n0,1,2,3\n1,1,1,1\n"
    (tmp_path / "log.csv").write_text(rows)
    (tmp_path / "r.html").write_text(page(document(subjects([path, tmp_path / "log.csv"]))), encoding="utf-8")
    with opened(browser, tmp_path / "r.html") as found:
        for tab in ("network", "trade", "costs", "training", "fixed", "removed"):
            found.page.click(f"#tab-{tab}")
            assert found.page.locator("img").count() == 0
        found.page.click("#tab-network")
        shown = f"{HOSTILE} 0".replace(" ", r"\u{2028}")
        assert cells(found.page, "Layers", 1)[0] == f"…{shown[-33:]}"
        assert found.page.locator("td").first.get_attribute("title") == f"{shown} in node {HOSTILE}"
        found.page.click("#tab-costs")
        expect(found.page.locator("#panel")).to_contain_text(r"\u{2028}")
