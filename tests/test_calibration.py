"""Measured latency: what runs teach, what is kept of them, and what may not be used in silence."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from onnxruntime import get_available_providers as available

from documents import read
from exported import exported
from laws import random_cut
from onnxmorph import latency
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.calibration import Place, calibrate, compare
from onnxmorph.calibration.attribution import NOWHERE, attribute, per_kernel
from onnxmorph.calibration.calibrate import FEWEST, TOO_NOISY, learn
from onnxmorph.calibration.fit import Runs, fit
from onnxmorph.calibration.timing import processor, runtime, time_model
from onnxmorph.calibration.variants import build, variant
from onnxmorph.cli import run as command
from onnxmorph.errors import CalibrationError, DeviceError
from onnxmorph.latency.features import kinds
from onnxmorph.latency.kernels import kernels
from onnxmorph.latency.machine import Machine, Network, Run, machine
from onnxmorph.latency.measured import key_of, predictor
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.verify import random_inputs
from tiny import convnet, model, node, save, value, weight

HERE = Place("CPUExecutionProvider", 1)
MACHINE = Machine(runtime(), HERE.provider, HERE.threads, processor(), {})


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(convnet())


@pytest.fixture(scope="module")
def device(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device file, calibrated with the small network."""
    path = tmp_path_factory.mktemp("device") / "here.toml"
    calibrate(analysis, path, HERE, minutes=5, most=FEWEST + 4)
    return path


def synthetic(analysis: Analysis, count: int = 60, seed: int = 0) -> tuple[Runs, Machine]:
    """Runs on a machine whose coefficients are known, and the machine."""
    found = kernels(analysis)
    rng = np.random.default_rng(seed)
    truth = {
        kind.name: {"start": 1e-5, "work|16": 1e-9 * rng.uniform(1, 2), "bytes": 1e-10}
        for kind in kinds(analysis, found)
    }
    widths = np.array([variant(analysis, seed, n) for n in range(count)])
    cost = predictor(analysis, found, 1e-6, truth)
    network = Network("net", (), truth, 1e-6)
    return Runs(widths, cost.sweep(widths), cost.per_kernel(widths)), MACHINE.with_network(
        key_of(analysis, found), network
    )


@pytest.mark.parametrize("told", [True, False], ids=["kernels", "totals"])
def test_a_machine_that_obeys_the_features_is_learnt(analysis: Analysis, told: bool) -> None:
    runs, _ = synthetic(analysis)
    seen, unseen = runs.part(np.arange(40)), runs.part(np.arange(40, 60))
    seen = seen if told else replace(seen, kernels=None)
    found = kernels(analysis)
    cost = predictor(analysis, found, *fit(kinds(analysis, found), seen, {}))
    assert cost.sweep(unseen.widths) == pytest.approx(unseen.seconds, rel=0.02)
    if told:
        assert cost.per_kernel(unseen.widths) == pytest.approx(unseen.kernels, rel=0.1)


def test_a_few_runs_of_a_busy_machine_do_not_spoil_the_fit(analysis: Analysis) -> None:
    runs, _ = synthetic(analysis)
    busy = runs.seconds * np.where(np.arange(60) % 10 == 1, 3.0, 1.0)
    found = kernels(analysis)
    cost = predictor(analysis, found, *fit(kinds(analysis, found), replace(runs, seconds=busy, kernels=None), {}))
    off = np.abs(cost.sweep(runs.widths) / runs.seconds - 1)
    assert np.median(off) < 0.02 and off.max() < 0.1


def test_what_is_known_carries_a_fit_of_few_runs(analysis: Analysis) -> None:
    runs, there = synthetic(analysis)
    few = replace(runs.part(np.arange(3)), kernels=None)
    found = kernels(analysis)
    prior = there.coefficients("another network")[1]
    with_prior, without = (
        predictor(analysis, found, *fit(kinds(analysis, found), few, known)).sweep(runs.widths) / runs.seconds - 1
        for known in (prior, {})
    )
    assert np.abs(with_prior).max() < 0.5 * np.abs(without).max()


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "vit", "densenet"])
@pytest.mark.xdist_group("calibration")
def test_all_time_that_the_runtime_tells_belongs_to_a_kernel(name: str) -> None:
    of = analyze(exported(name).model)
    found, feeds = kernels(of), random_inputs(of.graph, np.random.default_rng(0))
    for number in (0, 1, 2):
        timed = time_model(build(of, variant(of, 0, number)), feeds, HERE)
        assert timed.profile is not None
        owners = attribute(of, found, timed.profile.nodes)
        assert (owners != NOWHERE).all()
        assert per_kernel(owners, timed.profile.seconds, len(found)).sum() == pytest.approx(timed.profile.seconds.sum())
        heavy = [k for k, kernel in enumerate(found) if of.op_costs["macs"][kernel.steps[0]].value(of.widths)]
        assert set(heavy) <= set(owners.tolist()), "a convolution or a product ran and took no time"


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "vit", "inception"])
def test_prediction_for_a_structure_is_that_for_the_shrunk_model(name: str) -> None:
    of = analyze(exported(name).model)
    _, there = synthetic(of)
    cost = latency.measured(of, there)
    copies = random_cut(of, np.random.default_rng(0))
    after = analyze(emit(of, copies))
    widths = Structure.of(of, copies).widths
    assert latency.measured(after, there).value(after.widths) == pytest.approx(cost.value(widths), rel=1e-12)
    assert latency.measured(after, there).calibrated is not None, "the shrunk model is not known as the same network"


@pytest.fixture(scope="module")
def wide() -> Analysis:
    """A network whose groups are wide enough for plateaus."""
    weights = [weight("a", 64, 3, 3, 3), weight("b", 48, 64, 3, 3), weight("c", 32, 48, 1, 1)]
    nodes = [node("Conv", "x a", "p"), node("Relu", "p", "q"), node("Conv", "q b", "r"), node("Conv", "r c", "y")]
    return analyze(model(nodes, weights, [value("x", [1, 3, 12, 12])], [value("y", None)]))


def test_the_price_is_the_steepest_finite_difference_over_a_step(wide: Analysis) -> None:
    cost = latency.measured(wide, synthetic(wide)[1])
    assert cost.multiples.tolist() == [16, 16]
    for widths in (wide.widths, wide.widths - 3, np.array([1, 5])):
        prices = cost.gradient(widths)
        for g in range(2):
            each = []
            for multiple in (16, 32):
                fewer = widths.copy()
                fewer[g] = max((widths[g] - 1) // multiple * multiple, min(widths[g] - 1, 1))
                each.append((cost.value(widths) - cost.value(fewer)) / (widths[g] - fewer[g]))
            assert prices[g] == pytest.approx(max(each))


def test_a_step_that_saves_nothing_makes_no_channel_free(wide: Analysis) -> None:
    """At 48 channels this machine is as slow as at 64: what counts is the step behind."""
    of = {kind.name: {"work|32": 1e-9, "work off any/16": 1e-9} for kind in kinds(wide, kernels(wide))}
    cost = predictor(wide, kernels(wide), 0.0, of)
    assert cost.multiples[0] == 16 and cost.rises.all()
    assert cost.value(np.array([48, 48])) == cost.value(np.array([64, 48]))
    assert (cost.gradient(np.array([64, 48])) > 0).all()


def test_plateaus_are_kept(wide: Analysis) -> None:
    found = kernels(wide)
    stairs = predictor(wide, found, 0.0, {kind.name: {"work|16": 1e-9} for kind in kinds(wide, found)})
    at = [stairs.value(np.array([width, 48])) for width in (17, 31, 32, 33)]
    assert at[0] == at[1] == at[2] < at[3]


def test_a_machine_without_steps_rewards_no_multiple(wide: Analysis) -> None:
    found = kernels(wide)
    smooth = predictor(wide, found, 0.0, {kind.name: {"work": 1e-9, "bytes": 1e-9} for kind in kinds(wide, found)})
    assert smooth.multiples.tolist() == [1, 1]


# ---------------------------------------------------------------- calibrating for real


def test_a_calibrated_device_predicts_what_then_runs(analysis: Analysis, device: Path) -> None:
    priced = analysis.with_costs(**latency.costs(analysis, latency.load(device)))
    found = compare(priced, HERE)
    assert found.measured is not None and found.error is not None
    assert -0.6 < found.error < 1.5  # of a few µs, on a machine that runs tests; benchmarks/ states the accuracy
    assert found.predicted == pytest.approx(sum(k.predicted for k in found.kernels) + found.overhead)
    assert all(k.measured is not None for k in found.kernels)
    assert "calibrated on this network" in found.notes[0]


def test_a_calibrated_latency_is_a_budget(analysis: Analysis, device: Path) -> None:
    priced = analysis.with_costs(**latency.costs(analysis, latency.load(device)))
    cost = priced.costs["latency"]
    middle = (cost.value(priced.widths) + cost.value(np.ones(len(priced.groups), np.int64))) / 2
    small = shrink(priced, budget=f"latency={middle * 1e9:.0f}ns")
    assert small.structure.costs["after"]["latency"] <= middle + 1e-9 < small.structure.costs["before"]["latency"]


def test_a_calibration_goes_on_where_it_stopped(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    with pytest.raises(CalibrationError, match="5 runs are too few") as e:
        calibrate(analysis, path, HERE, minutes=5, most=5)
    assert e.value.code == "calibrate-few"
    with pytest.raises(DeviceError, match="no network is measured to the end"):
        latency.costs(analysis, latency.load(path))
    first = machine(tomllib.loads(path.read_text())["measured"], "file")
    told: list[int] = []
    found = calibrate(analysis, path, HERE, minutes=5, most=FEWEST, progress=lambda runs, seconds: told.append(runs))
    assert told == list(range(6, FEWEST + 1))
    assert found.network.runs[:5] == next(iter(first.networks.values())).runs
    assert [r.widths for r in found.network.runs] == [tuple(variant(analysis, 0, n)) for n in range(FEWEST)]
    assert machine(tomllib.loads(path.read_text())["measured"], "file") == found.machine


def test_a_second_network_is_added(analysis: Analysis, device: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_bytes(device.read_bytes())
    other = analyze(exported("mlp").model)
    unknown = latency.measured(other, machine(tomllib.loads(path.read_text())["measured"], "file"))
    assert unknown.calibrated is None and unknown.value(other.widths) > 0
    found = calibrate(other, path, HERE, minutes=5, most=FEWEST)
    assert len(found.machine.networks) == 2
    assert latency.measured(other, found.machine).calibrated == found.network
    assert latency.measured(analysis, found.machine).calibrated is not None


def test_a_machine_too_busy_to_measure_is_an_error(analysis: Analysis) -> None:
    runs = tuple(Run(tuple(variant(analysis, 0, n).tolist()), 1e-3, TOO_NOISY + 0.1) for n in range(FEWEST))
    with pytest.raises(CalibrationError, match="differ by 40%") as e:
        learn(analysis, kernels(analysis), Network("net", runs, {}), MACHINE)
    assert e.value.code == "calibrate-noise"


@pytest.mark.parametrize(
    ("place", "change", "code", "text"),
    [
        (Place("CUDAExecutionProvider", 1), {}, "calibrate-provider", "there are .*CPUExecutionProvider"),
        (Place("CPUExecutionProvider", 2), {}, "calibrate-other", "threads 1, not 2"),
        (HERE, {"processor": "Z80"}, "calibrate-other", "processor 'Z80'"),
        (HERE, {"runtime": "onnxruntime 0.1"}, "calibrate-other", "runtime 'onnxruntime 0.1'"),
    ],
)
def test_a_file_of_another_place_is_left_alone(
    analysis: Analysis, device: Path, tmp_path: Path, place: Place, change: dict[str, str], code: str, text: str
) -> None:
    document = tomllib.loads(device.read_text())
    document["measured"] |= change
    path = tmp_path / "here.toml"
    path.write_text(tomli_w.dumps(document))
    before = path.read_bytes()
    with pytest.raises(CalibrationError, match=text) as e:
        calibrate(analysis, path, place, minutes=5, most=FEWEST)
    assert e.value.code == code and path.read_bytes() == before


@pytest.mark.skipif("AzureExecutionProvider" not in available(), reason="only in some builds of ONNX Runtime")
def test_what_a_provider_left_to_another_is_told(analysis: Analysis, tmp_path: Path) -> None:
    """It calls services, and leaves all ops to the CPU."""
    found = calibrate(analysis, tmp_path / "here.toml", Place("AzureExecutionProvider", 1), minutes=5, most=FEWEST)
    assert any("ran on CPUExecutionProvider, not on AzureExecutionProvider" in note for note in found.notes)


def test_a_modelled_device_is_not_written_over(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text("version = 1\nbandwidth = 1e9\noverhead = 0.0\n[peak]\nfloat32 = 1e9\n")
    with pytest.raises(CalibrationError, match="was not measured"):
        calibrate(analysis, path, HERE, most=1)


def test_a_model_without_channels_has_nothing_to_calibrate(tmp_path: Path) -> None:
    fixed = analyze(convnet(), bounds=None)
    fixed = replace(fixed, groups=())
    with pytest.raises(CalibrationError, match="nothing to calibrate"):
        calibrate(fixed, tmp_path / "here.toml", HERE, most=1)


def drop(table: dict[str, object], key: str) -> None:
    del table[key]


@pytest.mark.parametrize(
    ("edit", "code", "text"),
    [
        (lambda m: drop(m, "provider"), "device-key", "measured.provider: missing"),
        (lambda m: m.update(threads="four"), "device-value", "measured.threads: expected a whole number, found 'four'"),
        (lambda m: m.update(colour="red"), "device-key", "measured.colour: unknown"),
        (lambda m: m.update(networks={}), "device-measured", "run `onnxmorph calibrate`"),
        (lambda m: m["networks"][next(iter(m["networks"]))].update(kinds=3), "device-value", "expected a table"),
        (lambda m: m["networks"][next(iter(m["networks"]))]["kinds"].update({"Conv": {"work": -1.0}}),
         "device-value", "kinds.Conv.work: expected seconds, not negative, found -1.0"),
        (lambda m: m["networks"][next(iter(m["networks"]))]["kinds"].update({"Conv": {"work": float("nan")}}),
         "device-value", "found nan"),
        (lambda m: m["networks"][next(iter(m["networks"]))]["runs"][0].update(widths="all"), "device-value", "widths"),
    ],
)  # fmt: skip
def test_a_table_that_was_tampered_with(device: Path, edit: object, code: str, text: str) -> None:
    table = tomllib.loads(device.read_text())["measured"]
    edit(table)  # type: ignore[operator]
    with pytest.raises(DeviceError, match=text.replace("(", r"\(")) as e:
        machine(table, "here.toml")
    assert e.value.code == code and str(e.value).startswith("here.toml: measured")


# ---------------------------------------------------------------- the commands


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, path = save(convnet(), tmp_path / "net.onnx"), tmp_path / "here.toml"
    assert command(["calibrate", str(net), "-o", str(path), "--threads", "1", "--runs", "25", "--json"]) == 0
    told = read(capsys.readouterr().out, "calibrate")
    assert told["runs"] == 25 and told["network"] == "net.onnx" and told["held_out_error"]["median"] >= 0
    assert command(["latency", str(net), "--device", str(path), "--json"]) == 0
    found = read(capsys.readouterr().out, "latency")
    assert found["measured"] > 0 and found["error"] == pytest.approx(found["predicted"] / found["measured"] - 1)
    assert command(["latency", str(net), "--device", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "Conv" in shown and "measured" in shown and "calibrated on this network" in shown
    assert command(["latency", str(net), "--device", "t4"]) == 0
    shown = capsys.readouterr().out
    assert "nothing ran" in shown and "modelled from peaks" in shown
    assert command(["calibrate", str(net), "-o", str(path), "--provider", "NoProvider"]) == 1
    assert "calibrate-provider" in capsys.readouterr().err


def test_an_interrupted_calibration_is_kept(tmp_path: Path) -> None:
    net, path = save(convnet(), tmp_path / "net.onnx"), tmp_path / "here.toml"
    code = (
        "import sys; from onnxmorph.cli import run; "
        f"sys.exit(run(['calibrate', {str(net)!r}, '-o', {str(path)!r}, '--threads', '1', '--minutes', '5']))"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not path.exists():
        assert job.poll() is None
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130 and "runs are kept in" in told
    kept = machine(tomllib.loads(path.read_text())["measured"], "file")
    assert len(next(iter(kept.networks.values())).runs) >= 1
