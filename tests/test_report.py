"""The report's numbers are those of the networks; whatever a run, a structure or a file holds can be reported."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxmorph
from deep import deep, log
from exported import NAMES, exported
from functions import chosen
from onnxmorph import Analysis, Plan, Structure, analyze
from onnxmorph.axes import Mask
from onnxmorph.cli import run
from onnxmorph.errors import OnnxMorphError, TopologyError
from onnxmorph.report.page import Reader, document, page, subjects
from onnxmorph.report.page.layers import layers
from onnxmorph.report.page.removal import removed
from onnxmorph.surgery import scale, shrink
from onnxmorph.widths import keep_best
from structures import STRUCTURES
from structures.registry import MODULES
from test_cli import Capture, asked, refused, shown
from test_topology import emptied
from tiny import convnet, mlp, model, node, save, value, weight

HOSTILE = "</script><img src=x onerror=alert(1)>"


def of(*paths: Path) -> list[dict[str, Any]]:
    """The subjects of a report, as the page reads them."""
    found = json.loads(json.dumps(document(subjects(paths)), allow_nan=False))["subjects"]
    assert isinstance(found, list)
    return found


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


@pytest.fixture
def structure(net: Path, tmp_path: Path) -> Path:
    shrink(net, budget="flops=50%").structure.save(tmp_path / "s.json")
    return tmp_path / "s.json"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two rounds, whose first wrote a log."""
    folder = tmp_path_factory.mktemp("runs")

    def train(round: onnxmorph.Round) -> onnxmorph.Trained:
        found = chosen.choose(round)
        if found.structure is not None:
            round.visit(found.structure)
            log(found.structure, round.folder / "widths.csv", 20)
        return found

    plan = Plan(budget="flops=80%", shrink="flops=60%", rounds=2, tolerance=0)
    onnxmorph.morph(train, save(convnet(), folder / "net.onnx"), plan, folder / "run")
    return folder / "run"


# -- layers --------------------------------------------------------------------------------------


def check_layers(analysis: Analysis) -> None:
    """What a layer has after a cut, by the polynomials of the full network, the cut network's own layers say too."""
    rng = np.random.default_rng(0)
    widths = np.array([rng.integers(1, g.width + 1) for g in analysis.groups], np.int64)
    copies = keep_best(analysis, rng.random(analysis.channels + 1), widths)
    small = analyze(shrink(analysis, Structure.of(analysis, copies)).model)
    before = {each.name: each.widths(widths) for each in layers(analysis)}
    assert before == {each.name: each.widths(small.widths) for each in layers(small)}


BY_HAND = sorted(STRUCTURES.keys() - MODULES.keys() - {"torch_scripted"})


@pytest.mark.parametrize("name", BY_HAND)
def test_widths_of_layers_are_those_of_the_network_that_is_written(name: str) -> None:
    check_layers(analyze(STRUCTURES[name].build()))


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_widths_of_layers_of_real_networks(name: str) -> None:
    check_layers(analyze(exported(name).model))


def grouped() -> onnx.ModelProto:
    """A convolution, a depthwise one, one of two groups, and a head."""
    nodes = [
        *(node("Conv", "x a", "h"), node("Conv", "h b", "i", group=8), node("Conv", "i c", "j", group=2)),
        *(node("GlobalAveragePool", "j", "p"), node("Flatten", "p", "f"), node("Gemm", "f d", "y")),
    ]
    sizes = {"a": (8, 3, 1, 1), "b": (8, 1, 1, 1), "c": (6, 4, 1, 1), "d": (6, 3)}
    return model(nodes, [weight(n, *shape) for n, shape in sizes.items()], [value("x", [1, 3, 4, 4])])


LAYERS = {
    "grouped": (grouped, [(3, 8), (8, 8), (8, 6), (6, 3)]),
    "channels_last": (STRUCTURES["channels_last"].build, [(3, 8), (8, 8), (8, 6), (6, 5), (5, 6), (6, 4)]),
    "attention": (STRUCTURES["attention_op_packed"].build, [(10, 24), (10, 8), (10, 10), (30, 6)]),
    "lstm": (STRUCTURES["lstm_peepholes"].build, [(10, 12), (12, 5)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_a_person_would_count_them(name: str) -> None:
    build, expected = LAYERS[name]
    analysis = analyze(build())
    assert [each.widths(analysis.widths) for each in layers(analysis)] == expected


def test_a_layer_that_stays_says_why(net: Path) -> None:
    (found,) = of(net)
    assert [(each["name"], each["stays"]) for each in found["layers"] if not each["groups"]] == [
        ("head", "graph-output")
    ]


# -- costs ---------------------------------------------------------------------------------------


def test_shares_add_up_to_the_costs(net: Path, structure: Path) -> None:
    (found,) = of(structure)
    for when, name in enumerate(("before", "after")):
        for i, cost in enumerate(found["shared"]):
            assert sum(each["costs"][when][i] for each in found["types"]) == found["costs"][name][cost]
            own = [each["costs"][when][i] for each in found["layers"]]
            types = [each["costs"][when][i] for each in found["types"] if each["op"] in ("Conv", "Gemm")]
            assert sum(own) == sum(types) > 0
    assert found["costs"]["before"] == analyze(net).count()
    assert found["costs"]["after"]["flops"] == Structure.load(structure).costs["after"]["flops"]


def test_prices_are_those_of_one_channel(net: Path, structure: Path) -> None:
    (found,) = of(structure)
    analysis, lives = analyze(net), Structure.load(structure)
    assert [g["after"] for g in found["groups"]] == lives.widths.tolist()
    for when, widths in enumerate((analysis.widths, lives.widths)):
        for i, cost in enumerate(found["priced"]):
            prices = [g["price"][when][i] for g in found["groups"]]
            assert prices == analysis.costs[cost].gradient(widths).tolist()


def test_the_curve_is_that_of_the_width_multiplier(net: Path) -> None:
    (found,) = of(net)
    curve = found["curve"]
    half = scale(net, "flops=50%")
    omega = float(half.structure.provenance["omega"])
    low, high = (curve["costs"]["flops"][at] for at in (curve["omega"].index(0.1), curve["omega"].index(1.0)))
    assert high == analyze(net).count()["flops"] and low < high
    at = np.interp(omega, curve["omega"], curve["costs"]["flops"])
    assert abs(at - half.structure.costs["after"]["flops"]) < 0.1 * high
    assert max(curve["omega"]) == 1.0  # nothing costs more


def test_the_curve_goes_on_where_something_costs_more(net: Path, tmp_path: Path) -> None:
    scale(net, "flops=150%").structure.save(tmp_path / "wide.json")
    (found,) = of(tmp_path / "wide.json")
    assert max(found["curve"]["costs"]["flops"]) > found["costs"]["after"]["flops"] > found["costs"]["before"]["flops"]


def test_latency_is_a_cost_where_a_device_is_given(net: Path) -> None:
    (found,) = document(subjects([net], Reader(device="l4")), "latency")["subjects"]
    assert found["costs"]["before"]["latency"] > 0
    assert all(g["price"][0][found["priced"].index("latency")] >= 0 for g in found["groups"])


def test_a_cost_that_is_not_there(net: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "r.html"
    message = refused(capsys, "report", net, "-o", output, "--cost", "latency", exit_code=1, code="report-cost")
    assert "there are flops, params" in message and not output.exists()


# -- what stays, what went -----------------------------------------------------------------------


def test_what_stays_has_its_reason(net: Path) -> None:
    (found,) = of(net)
    analysis = analyze(net)
    rows = [(f.code, f.tensor, f.axis, f.positions, f.reason) for f in analysis.fixed]
    assert [(*row[:4], found["reasons"][row[4]]) for row in found["fixed"]] == rows
    assert len(rows) >= 2


def check_removed(analysis: Analysis) -> None:
    tried = 0
    for group in analysis.groups:
        try:
            small = emptied(analysis, group.id)
        except TopologyError:
            assert removed(analysis, np.where(group_mask(analysis, group.id), 0, analysis.widths)) == []
            continue
        gone = removed(analysis, small.structure.widths)
        names = {analysis.plans[each.number].node.name for each in gone}
        assert names and not names & {n.name for n in small.model.graph}
        assert any(group.id in each.groups for each in gone)
        tried += 1
    assert tried


def group_mask(analysis: Analysis, id: str) -> Mask:
    return np.array([g.id == id for g in analysis.groups])


def test_nodes_that_went_are_not_in_the_network() -> None:
    check_removed(analyze(deep(21)))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["resnet", "inception", "densenet"])
def test_nodes_that_went_are_not_in_real_networks(name: str) -> None:
    check_removed(analyze(exported(name).model))


def test_a_branch_that_went_is_in_the_report(tmp_path: Path) -> None:
    path = save(deep(21), tmp_path / "deep.onnx")
    analysis = analyze(path)
    widths = np.array([0 if g.id == "stage0.block1.conv1.weight:0" else g.width for g in analysis.groups])
    small = emptied(analysis, "stage0.block1.conv1.weight:0")
    small.structure.save(tmp_path / "s.json")
    (found,) = of(tmp_path / "s.json")
    assert [(each["name"], each["why"]) for each in found["removed"]] == [
        ("stage0.block1.conv1", "empty"),
        ("stage0.block1.act", "empty"),
        ("stage0.block1.conv2", "constant"),
    ]
    assert [each["name"] for each in found["layers"] if each["gone"]] == ["stage0.block1.conv1", "stage0.block1.conv2"]
    counted = analyze(small.model).count()
    assert found["costs"]["after"]["flops"] == counted["flops"] < analysis.count(widths)["flops"]
    assert sum(each["costs"][1][0] for each in found["types"] if each["op"] == "Conv") <= counted["flops"]


def test_a_structure_that_cannot_be_applied_is_shown(net: Path, tmp_path: Path) -> None:
    analysis = analyze(net)
    empty = Structure.of(analysis, np.array([1] + [0] * analysis.channels))
    empty.save(tmp_path / "s.json")
    (found,) = of(tmp_path / "s.json")
    assert found["removed"] == [] and all(g["after"] == 0 for g in found["groups"])


# -- what is reported ----------------------------------------------------------------------------


def test_a_run(ran: Path) -> None:
    (found,) = of(ran)
    assert (found["name"], found["kind"]) == ("run", "run")
    rows = json.loads((ran / "pareto.json").read_text())
    assert [(p["metric"], p["best"], p["costs"]["flops"]) for p in found["points"]] == [
        (row["metric"], row["pareto"], row["flops"]) for row in rows
    ]
    before, after = (analyze(ran / name) for name in ("seed.onnx", "final/trained.onnx"))
    assert found["costs"] == {"before": before.count(), "after": after.count()}
    assert {g["id"]: g["after"] for g in found["groups"]} == {g.id: g.width for g in after.groups}


def test_the_logs_of_a_run_follow_one_another(ran: Path) -> None:
    (found,) = of(ran)
    series = found["series"]
    assert series["marks"] == [[0, "round-1"], [190, "round-2"]]
    assert series["steps"] == [*range(0, 200, 10), *range(190, 390, 10)]
    assert len(series["strength"]) == len(series["costs"]["flops"]) == 40
    assert [each["id"] for each in series["widths"]] == [g["id"] for g in found["groups"]]
    structure = Structure.load(ran / "round-1" / "shrunk.json")
    for each, kept in zip(series["widths"], structure.groups, strict=True):
        end = [width for step, width in each["changes"] if step < 20][-1]
        assert each["changes"][0] == [0, kept.width] and end == len(kept.keep)


def test_without_logs_a_run_shows_its_structures(ran: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ran, tmp_path / "run", ignore=shutil.ignore_patterns("*.csv"))
    (found,) = of(folder)
    series = found["series"]
    assert series["unit"] == "structure" and series["strength"] is None
    assert series["costs"]["flops"] == [
        found["costs"]["before"]["flops"],
        *(p["costs"]["flops"] for p in found["points"]),
    ]


@pytest.mark.parametrize(("lost", "shown"), [("final", "round 2, expanded"), ("round-2", "round 1, expanded")])
def test_a_run_that_goes_on(lost: str, shown: str, ran: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ran, tmp_path / "run")
    for name in {"final", lost}:
        shutil.rmtree(folder / name)
    (found,) = of(folder)
    assert ["shown", shown] in found["facts"]


def test_a_run_that_has_only_begun(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "seed.onnx"):
        shutil.copy(ran / name, folder)
    (found,) = of(folder)
    assert found["changed"] is False and found["points"] == [] and found["series"] is None


def test_a_sweep_is_its_jobs_side_by_side(ran: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(ran, tmp_path / "runs" / name)
    (tmp_path / "runs" / "b" / "failed.json").write_text('{"code": "train-function", "message": "no data"}')
    found = of(tmp_path / "runs")
    assert [each["name"] for each in found] == ["a", "b"]
    assert ["failed", "no data"] in found[1]["facts"]


def test_the_demo(structure: Path, net: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    shutil.copy(structure, folder / "structure.json")
    shutil.copy(net, folder / "seed.onnx")
    shutil.copy(
        Path(__file__).parents[1] / "benchmarks" / "results" / "demo" / "digits_seed0.csv", folder / "table.csv"
    )
    (found,) = of(folder)
    assert found["kind"] == "demo"
    points = {p["name"]: p for p in found["points"]}
    assert [name for name, p in points.items() if p["multiplied"]] == ["width × 0.75", "width × 1"]
    assert points["seed"]["metric"] == pytest.approx(0.98413, abs=1e-5)


def test_a_table_of_measured_networks(tmp_path: Path) -> None:
    rows = "network,method,flops,accuracy\nr,width,10,0.5\nr,width,20,nan\nr,shrink,10,0.6\nr,shrink,15,\n"
    (tmp_path / "t.csv").write_text(rows)
    (found,) = of(tmp_path / "t.csv")
    assert [(p["metric"], p["multiplied"]) for p in found["points"]] == [
        *[(0.5, True), (None, True), (0.6, False), (None, False)]
    ]


def test_a_model_that_a_structure_was_made_from_is_its_network_before(net: Path, structure: Path) -> None:
    moved = structure.parent / "elsewhere"
    moved.mkdir()
    shutil.move(structure, moved / "s.json")
    (found,) = of(net, moved / "s.json")
    assert found["kind"] == "structure" and found["layers"]
    (alone,) = of(moved / "s.json")
    assert "layers" not in alone and [g["after"] for g in alone["groups"]] == [g["after"] for g in found["groups"]]
    assert alone["costs"] == found["costs"]
    shutil.copy(save(mlp(), moved / "another.onnx"), moved / "model.onnx")
    assert "layers" not in of(moved / "s.json")[0]
    shutil.copy(net, moved / "model.onnx")
    assert of(moved / "s.json")[0]["layers"]


def test_a_structure_under_boundaries(net: Path, tmp_path: Path) -> None:
    bounds = onnxmorph.Bounds(keep=["k1"])
    shrink(net, budget="flops=80%", bounds=bounds).structure.save(tmp_path / "s.json")
    for paths in ([tmp_path / "s.json"], [net, tmp_path / "s.json"]):
        (found,) = of(*paths)
        assert [g["id"] for g in found["groups"]] == ["k2:0"]
        assert "kept" in {row[0] for row in found["fixed"]}


def test_names_of_subjects_differ(net: Path, structure: Path) -> None:
    names = [each["name"] for each in of(structure, structure, net)]
    assert len(set(names)) == len(names) == 2


def test_a_log_belongs_to_what_stands_before_it(structure: Path, tmp_path: Path) -> None:
    log(Structure.load(structure), tmp_path / "l.csv", 10)
    first, second = of(structure, tmp_path / "l.csv", structure)
    assert first["series"]["steps"] == list(range(0, 100, 10)) and second["series"] is None
    (alone,) = of(tmp_path / "l.csv")
    assert alone["kind"] == "log" and alone["series"] == first["series"]


def test_a_log_that_is_being_written(structure: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    log(Structure.load(structure), path, 10)
    path.write_text(path.read_text()[:-8])
    (found,) = of(path)
    assert found["series"]["steps"] == list(range(0, 90, 10))


def test_what_is_no_number_in_a_log_is_a_gap(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("step,strength,cost/flops,width/a\n0,nan,5,3\n1,2,inf,3\n2,1,4,2\n")
    (found,) = of(tmp_path / "l.csv")
    series = found["series"]
    assert series["strength"] == [None, 2, 1] and series["costs"] == {"flops": [5, None, 4]}
    assert series["widths"] == [{"id": "a", "changes": [[0, 3], [2, 2]]}]


def test_a_long_log_is_thinned_out_and_keeps_its_ends(tmp_path: Path) -> None:
    rows = "".join(f"{i},1,{1000 - i}\n" for i in range(1000))
    (tmp_path / "l.csv").write_text("step,strength,width/a\n" + rows)
    (found,) = of(tmp_path / "l.csv")
    series = found["series"]
    assert len(series["steps"]) == 240 and (series["steps"][0], series["steps"][-1]) == (0, 999)
    assert series["widths"][0]["changes"][-1] == [239, 1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("there.txt", "x", "holds nothing to report"),
        ("not_there.json", None, "not_there.json"),
        ("not_there", None, "there is no"),
        ("t.csv", "a,b\n1,2\n", "neither a log of training"),
        ("t.csv", "flops,accuracy\n", "has no rows"),
        ("t.csv", "flops,accuracy\nmany,1\n", "'many' in column flops"),
        ("t.csv", 'flops,accuracy\n"1,2', "cannot be read as CSV"),
        ("s.json", "{}", "s.json: .* expected"),
        ("empty/", None, "is the folder of no run"),
        ("run/run.json", "{", "cannot be read"),
        ("run/run.json", '{"version": 1, "rounds": "many"}', "is of no run"),
        ("run/run.json", '{"version": 1, "shapes": 5}', "is of no run"),
        ("run/run.json", '{"version": 1, "device": 5}', "is of no run"),
        ("run/run.json", '{"version": 2}', "reads 1, not 2; upgrade"),
        ("m.onnx", "no model", "m.onnx"),
    ],
)
def test_what_cannot_be_reported(name: str, text: str | None, message: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif text is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    path = path.parent if path.parent.name == "run" else path
    with pytest.raises(OnnxMorphError, match=message):
        subjects([path])
    output = tmp_path / "r.html"
    assert run(["report", str(path), "-o", str(output)]) == 1
    assert "bug" not in capsys.readouterr().err and not output.exists()


# -- the file ------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(text)


def hostile() -> onnx.ModelProto:
    """The network of `mlp`, whose names are markup."""
    a, h, r = (f"{HOSTILE} {i}".replace(" ", "\u2028") for i in range(3))
    nodes = [
        onnx.helper.make_node("Gemm", ["x", a], [h], name=HOSTILE),
        onnx.helper.make_node("Relu", [h], [r], name="${{x}}$(y)<!--<script>"),
        onnx.helper.make_node("Gemm", [r, "b"], ["y"]),
    ]
    return model(nodes, [weight(a, 4, 8), weight("b", 8, 3, seed=1)])


def test_names_from_a_model_are_never_markup(tmp_path: Path) -> None:
    path = save(hostile(), tmp_path / "<img src=x onerror=alert(2)>.onnx")
    text = page(document(subjects([path])))
    plain = Elements(page(document(subjects([save(mlp(), tmp_path / "plain.onnx")]))))
    found = Elements(text)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    assert found.scripts[1:] == plain.scripts[1:]
    assert json.loads(found.scripts[0])["subjects"][0]["layers"][0]["name"] == HOSTILE
    assert not set("<>&\u2028") & set(found.scripts[0])


def test_the_file_names_no_other(net: Path) -> None:
    found = Elements(page(document(subjects([net]))))
    attributes = {name for _, given in found.tags for name in given}
    assert not attributes & {"src", "href", "action", "data", "srcset", "poster", "background"}
    policy = next(given["content"] for _, given in found.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    words = " ".join(found.scripts).replace("http://www.w3.org/2000/svg", "")
    assert not any(word in words for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "import(", "innerHTML"))


def test_the_same_sources_make_the_same_file(ran: Path) -> None:
    assert page(document(subjects([ran]))) == page(document(subjects([ran])))


# -- the command ---------------------------------------------------------------------------------


def test_the_command(net: Path, structure: Path, tmp_path: Path, capsys: Capture) -> None:
    output, figures = tmp_path / "r.html", tmp_path / "deep" / "figures"
    found = asked(capsys, "report", structure, net, "-o", output, "--figures", figures)
    assert found["report"] == str(output) and found["bytes"] == output.stat().st_size
    assert [each["kind"] for each in found["subjects"]] == ["structure"]
    assert found["subjects"][0]["costs"]["before"] == analyze(net).count()
    assert sorted(found["figures"]) == sorted(str(path) for path in figures.iterdir())
    text = shown(capsys, "report", structure, "-o", output)
    costs = found["subjects"][0]["costs"]
    assert f"Written: {output}" in text and f"{costs['after']['flops'] / costs['before']['flops']:.1%}" in text


@pytest.mark.parametrize("over", ["seed.onnx", "run.json", "final/final.json"])
def test_a_report_is_not_written_over_what_a_folder_holds(over: str, ran: Path, capsys: Capture) -> None:
    before = (ran / over).read_bytes()
    refused(capsys, "report", ran, "-o", ran / over, exit_code=2, code="usage")
    assert (ran / over).read_bytes() == before


@pytest.mark.parametrize("over", ["net.onnx", "s.json"])
def test_a_report_is_not_written_over_its_source(over: str, structure: Path, capsys: Capture) -> None:
    before = (structure.parent / over).read_bytes()
    sources = [structure, structure.parent / "net.onnx"]
    refused(capsys, "report", *sources, "-o", structure.parent / over, exit_code=2, code="usage")
    assert (structure.parent / over).read_bytes() == before


def test_a_report_without_figures_loads_no_matplotlib(net: Path, tmp_path: Path) -> None:
    program = "import sys; from onnxmorph.cli import run; run(sys.argv[1:]); assert 'matplotlib' not in sys.modules"
    arguments = ["report", str(net), "-o", str(tmp_path / "r.html"), "--json"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    assert (tmp_path / "r.html").exists()


# -- figures -------------------------------------------------------------------------------------


def test_figures(ran: Path, tmp_path: Path) -> None:
    from onnxmorph.report.page.figures import save_figures

    written = save_figures(document(subjects([ran])), tmp_path / "figures")
    names = {"tradeoff", "run-layers", "run-costs", "run-training"}
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    for path in written:
        if path.suffix == ".svg":
            assert len(list(ElementTree.parse(path).iter())) > 50
        else:
            assert len(Image.open(path).convert("RGB").getcolors(1 << 20) or []) > 10
    again = save_figures(document(subjects([ran])), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_figures_of_names_that_are_markup_and_mathematics(tmp_path: Path) -> None:
    from onnxmorph.report.page.figures import save_figures

    path = save(hostile(), tmp_path / r"$\frac{$ .. onnx.onnx")
    written = save_figures(document(subjects([path])), tmp_path / "figures")
    assert all(each.parent == tmp_path / "figures" for each in written) and written
    for each in (each for each in written if each.suffix == ".svg"):
        ElementTree.parse(each)


@pytest.mark.parametrize("holds", ["log", "table"])
def test_figures_of_what_has_no_network(holds: str, tmp_path: Path) -> None:
    from onnxmorph.report.page.figures import save_figures

    text = {"log": "step,strength,cost/flops,width/a\n0,0,5,3\n5,1,4,2\n", "table": "flops,accuracy\n1,0.5\n2,0.6\n"}
    (tmp_path / "t.csv").write_text(text[holds])
    written = save_figures(document(subjects([tmp_path / "t.csv"])), tmp_path / "figures")
    assert [path.name for path in written] == {
        "log": ["t.csv-training.svg", "t.csv-training.png"],
        "table": ["tradeoff.svg", "tradeoff.png"],
    }[holds]


def test_figures_without_matplotlib(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "onnxmorph.report.page.figures", raising=False)
    monkeypatch.delattr(onnxmorph.report.page, "figures", raising=False)
    output = tmp_path / "r.html"
    options = ("-o", output, "--figures", tmp_path / "figures")
    message = refused(capsys, "report", net, *options, exit_code=1, code="report-extra")
    assert "pip install 'onnxmorph[report]'" in message and not output.exists()


def test_a_folder_that_cannot_be_written(net: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    options = ("-o", tmp_path / "r.html", "--figures", tmp_path / "file")
    refused(capsys, "report", net, *options, exit_code=1, code="output")


# -- what docs/report.md shows ---------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[1] / "docs" / "report.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = re.findall(r"^    onnxmorph (.*)$", DOCUMENT, re.MULTILINE)


def test_what_the_document_shows_runs(
    ran: Path, net: Path, structure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net.rename("model.onnx")
    shutil.copytree(ran, "run")
    shutil.copytree(ran, Path("runs") / "seed=0")
    log(Structure.load(structure), Path("widths.csv"), 5)
    Path("baseline.csv").write_text("method,flops,accuracy\nwidth,1e5,0.5\n")
    assert len(COMMANDS) == 6 and len(BLOCKS) == 1
    for command in COMMANDS:
        Path("report.html").unlink(missing_ok=True)
        assert run(shlex.split(command)) == 0
        assert Path("report.html").exists()
    exec(BLOCKS[0], {})


def test_the_document_names_every_tab() -> None:
    script = (Path(onnxmorph.__file__).parent / "report" / "page" / "main.js").read_text(encoding="utf-8")
    tabs = re.findall(r'^  \["\w+", "([^"]+)"', script, re.MULTILINE)
    assert tabs == re.findall(r"^\| ([A-Z][\w -]+) \|", DOCUMENT, re.MULTILINE)
