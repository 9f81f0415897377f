"""The command line as a whole: one vocabulary, documents by their schemas, streams, colours, completion, interrupts."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import onnx
import pytest
import typer
from jsonschema import Draft202012Validator, ValidationError

from documents import read, strict, validator
from onnxmorph import Structure, cli
from onnxmorph.analysis import analyze
from onnxmorph.cli import run
from onnxmorph.cli.options import COSTS
from onnxmorph.json_reference import reference, schema
from onnxmorph.latency import costs as latencies
from onnxmorph.latency import load
from onnxmorph.report import VERSIONS
from test_cli import asked, refused, shown
from tiny import convnet, deep, mlp, save

Capture = pytest.CaptureFixture[str]
COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined] # a group of commands
MORPHED = ("shrink", "scale", "expand")
DOCUMENTS = {"explain": {"explain", "groups"}, **{command: {"morphed"} for command in MORPHED}}
FUNCTION = f"{Path(__file__).parent / 'functions' / 'chosen.py'}:choose"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


@pytest.fixture
def small(net: Path) -> Path:
    """The network at half its FLOPs, with `s.json` beside it."""
    path = net.with_name("small.onnx")
    assert (
        run(["shrink", str(net), "-o", str(path), "--budget", "flops=50%", "--save-structure", f"{net.parent}/s.json"])
        == 0
    )
    return path


# -- one vocabulary ------------------------------------------------------------------------------


def options(command: str) -> dict[str, Any]:
    return {param.opts[0]: param for param in COMMANDS[command].params}


def test_an_option_means_the_same_everywhere() -> None:
    """The same name takes the same thing, and says the same of it; but for what is added, and what is written."""
    said: dict[str, tuple[str, Any, list[str]]] = {}
    for command in COMMANDS:
        for name, param in options(command).items():
            about, kind = param.help.removesuffix(" Repeatable."), (param.metavar, param.opts)
            first, metavar, at = said.setdefault(name, (about, kind, []))
            at.append(command)
            assert kind == metavar or name == "--output", f"{name} of {command} is not that of {at[0]}"
            if name not in ("--output", "--structure", "MODEL", "model"):
                same = about.startswith(first) or first.startswith(about)
                assert same, f"{name} of {command} is not told as that of {at[0]}: {about!r}, {first!r}"


def test_options_stand_in_one_order() -> None:
    orders = [list(options(command)) for command in COMMANDS]
    for one, other in itertools.combinations(orders, 2):
        both = [name for name in one if name in other]
        assert both == [name for name in other if name in both]


def test_every_command_has_json_and_shows_more_on_request() -> None:
    for command in COMMANDS:
        names = options(command)
        assert "--json" in names
        assert "--verbose" in names or command == "demo"  # which tells everything


def test_every_path_is_a_file_or_a_folder() -> None:
    metavars = set()
    for command in COMMANDS.values():
        kinds = get_type_hints(command.callback)
        paths = [p for p in command.params if Path in (kinds[p.name], *get_args(kinds[p.name]))]
        metavars |= {param.metavar for param in paths}
    assert metavars <= {"MODEL", "SMALL", "BEFORE", "AFTER", "SOURCE", "FILE", "DIR"}


def test_the_costs_that_the_help_lists_are_those_of_an_analysis(net: Path) -> None:
    analysis = analyze(net)
    assert set(COSTS) == {*analysis.costs, *latencies(analysis, load("t4"))}


# -- documents -----------------------------------------------------------------------------------


def test_every_document_follows_its_schema(net: Path, small: Path, capsys: Capture) -> None:
    kept, run_folder = net.parent / "s.json", net.parent / "run"
    share = ("--budget", "flops=50%")
    calls: list[tuple[object, ...]] = [
        ("analyze", net),
        ("analyze", net, "--device", "t4"),
        ("explain", net),
        ("explain", net, "k1"),
        ("explain", net, "k1:1"),
        ("explain", net, "k1:0"),
        ("explain", net, analyze(net).plans[0].node.outputs[0]),
        ("shrink", net, "-o", net.parent / "again.onnx", *share, "--save-structure", net.parent / "again.json"),
        ("scale", net, "-o", net.parent / "half.onnx", *share),
        ("expand", net, "-o", net.parent / "wide.onnx", "--structure", kept, "--budget", "flops=100%"),
        ("verify", net, small, "--structure", kept, "--samples", "1"),
        ("diff", net, small),
        ("diff", net, kept),
        ("report", net, kept, "-o", net.parent / "report.html"),
        ("latency", net, "--device", "t4"),
        ("morph", FUNCTION, net, "-o", run_folder, "--budget", "flops=100%", "--rounds", "1"),
    ]
    for argv in calls:
        capsys.readouterr()
        assert run([*map(str, argv), "--json"]) == 0, argv
        found = read(capsys.readouterr().out)
        assert found["schema"].split("/")[1] in DOCUMENTS.get(str(argv[0]), {argv[0]})
    # calibrate, sweep and demo take longer: their documents are read in tests of their own
    assert {str(argv[0]) for argv in calls} | {"calibrate", "sweep", "demo"} == set(COMMANDS)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_schema_is_one_and_describes_every_field(name: str) -> None:
    found = schema(name)
    Draft202012Validator.check_schema(found)
    assert found["properties"]["schema"] == {
        "const": f"onnxmorph/{name}/{VERSIONS[name]}",
        "description": "This schema and its version.",
    }
    for path, _, about in fields(found):
        assert about, f"{name}: {path} is not described"


def fields(of: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, str]]:
    for key, each in of.get("properties", {}).items():
        yield f"{path}{key}", each, each.get("description", each.get("$ref", ""))
        yield from fields(each, f"{path}{key}.")
    for inner in (of.get("items"), of.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from fields(inner, path)


def test_every_command_has_a_schema_and_every_schema_a_command() -> None:
    told = {name for command in COMMANDS for name in DOCUMENTS.get(command, {command})}
    files = {path.stem for path in (Path(cli.__file__).parents[1] / "schemas").glob("*.json")}
    assert told | {"error"} == set(VERSIONS) == files


def test_a_field_that_no_schema_lists_is_found() -> None:
    document = {"schema": "onnxmorph/groups/1", "groups": {"a:0": 4}, "fixed": {}}
    validator("groups").validate(document)
    with pytest.raises(ValidationError):
        validator("groups").validate({**document, "further": 1})
    Draft202012Validator(schema("groups")).validate({**document, "further": 1})  # programs may pass over it
    assert strict(schema("groups")) != schema("groups")


def test_the_reference_of_documents_is_up_to_date() -> None:
    written = Path(__file__).parents[1] / "docs" / "json.md"
    assert written.read_text(encoding="utf-8") == reference(), "run: python -m onnxmorph.json_reference > docs/json.md"


# -- more, and why -------------------------------------------------------------------------------


def test_verbose_shows_every_row_and_why(tmp_path: Path, capsys: Capture) -> None:
    net, out = save(deep(30), tmp_path / "deep.onnx"), tmp_path / "o.onnx"
    brief, full = (shown(capsys, "analyze", net, *more) for more in ((), ("--verbose",)))
    assert "10 more groups: --verbose" in brief and "w28:0" not in brief.split("Every axis")[0].split("Alive")[0]
    assert "more" not in full and all(f"w{i}:0" in full for i in range(30))
    assert "Every axis that stays" in full and "keeps its shape" in full
    assert all(f"w{i}:0" in shown(capsys, "explain", net, "w0:0", "-v") for i in range(1))
    why = shown(capsys, "shrink", net, "-o", out, "--budget", "flops=50%", "-v")
    assert "Widths, and the price of one channel" in why and "w29:0" in why and "shrink by magnitude" in why
    assert "Widths, and the price" not in shown(capsys, "shrink", net, "-o", out, "--budget", "flops=50%")


def test_verbose_tells_of_every_output_and_kernel(net: Path, small: Path, tmp_path: Path, capsys: Capture) -> None:
    verdict = shown(capsys, "verify", net, small, "--structure", net.parent / "s.json", "--samples", "1", "-v")
    assert f"Output {analyze(net).graph.outputs[0]!r} differs by" in verdict
    many = save(deep(30), tmp_path / "deep.onnx")
    by_kind, each = (shown(capsys, "latency", many, "--device", "t4", *more) for more in ((), ("-v",)))
    assert "conv29" in each and "conv29" not in by_kind


# -- side by side --------------------------------------------------------------------------------


def test_diff_puts_two_models_side_by_side(net: Path, small: Path, capsys: Capture) -> None:
    found = asked(capsys, "diff", net, small)
    kept = Structure.load(net.parent / "s.json")
    assert not found["same"] and found["before"]["kind"] == found["after"]["kind"] == "model"
    assert found["widths"] == {g.id: {"before": g.width, "after": len(g.keep)} for g in kept.groups}
    for name, value in kept.costs["after"].items():
        assert found["costs"][name] == {"before": kept.costs["before"][name], "after": value}
    shapes = {t.name: list(t.dims) for t in onnx.load(small).graph.initializer}
    assert {row["tensor"]: row["after"] for row in found["parameters"]}.items() <= shapes.items()
    text = shown(capsys, "diff", net, small)
    changed = next(g.id for g in kept.groups if len(g.keep) < g.width)
    assert "of before" in text and changed in text and "Ops: 7 are the same" in text


def test_diff_tells_what_came_and_went_of_the_topology(tmp_path: Path, capsys: Capture) -> None:
    one, other = mlp(), mlp()
    other.graph.node[1].op_type = "Sigmoid"
    other.graph.node[0].ClearField("name")
    paths = [save(each, tmp_path / f"{i}.onnx") for i, each in enumerate((one, other))]
    found = asked(capsys, "diff", *paths)
    told = {row["node"]: row for row in found["ops"]}
    assert told["act"]["before"]["op"] == "Relu" and told["act"]["after"]["op"] == "Sigmoid"
    assert told["one"]["after"] is None and told["h"]["before"] is None
    text = shown(capsys, "diff", *paths, "-v")
    assert "Changed: 'act': Relu(h) → Sigmoid(h)" in text and "Gone: 'one'" in text and "New: 'h'" in text
    assert "1 new, 1 changed" in shown(capsys, "diff", *paths)


def test_diff_of_the_same_network_says_so(net: Path, capsys: Capture) -> None:
    assert asked(capsys, "diff", net, net)["same"]
    assert "Nothing differs" in shown(capsys, "diff", net, net)


def test_diff_takes_structures(net: Path, small: Path, capsys: Capture) -> None:
    kept, bare = net.parent / "s.json", net.parent / "bare.json"
    document = json.loads(kept.read_text())
    bare.write_text(json.dumps({key: document[key] for key in ("version", "model", "groups")}))
    by_model, by_structure, counted = (asked(capsys, "diff", net, other) for other in (small, kept, bare))
    assert by_structure["after"]["kind"] == "structure"
    assert by_structure["widths"] == by_model["widths"] == counted["widths"]
    assert by_structure["costs"] == by_model["costs"] == counted["costs"]
    assert asked(capsys, "diff", kept, kept)["same"]
    assert asked(capsys, "diff", bare, kept)["costs"]["flops"]["before"] is None


def test_diff_reads_models_under_the_boundaries_of_the_structure(net: Path, capsys: Capture) -> None:
    kept = net.parent / "s.json"
    argv = ("shrink", net, "-o", net.parent / "o.onnx", "--budget", "flops=60%", "--save-structure", kept)
    asked(capsys, *argv, "--keep", "k1")
    assert list(asked(capsys, "diff", net, kept)["widths"]) == ["k2:0"]


# -- pipes ---------------------------------------------------------------------------------------


class Stream:
    """A standard stream that is no terminal, with bytes below."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_a_model_comes_from_stdin(net: Path, small: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = asked(capsys, "analyze", net)
    for argv in (
        ("analyze", "-"),
        ("explain", "-", "k1:0"),
        ("scale", "-", "-o", net.parent / "half.onnx", "--budget", "flops=50%"),
        ("diff", "-", small),
        ("verify", "-", small, "--structure", net.parent / "s.json"),
        ("latency", "-", "--device", "t4"),
    ):
        monkeypatch.setattr(sys, "stdin", Stream(net.read_bytes()))
        found = asked(capsys, *argv)
        assert argv[0] != "analyze" or found == {**whole, "model": "-"}


def test_a_model_goes_to_stdout(net: Path, small: Path) -> None:
    argv = ["shrink", "-", "-o", "-", "--budget", "flops=50%"]
    done = subprocess.run(
        [sys.executable, "-m", "onnxmorph", *argv], input=net.read_bytes(), capture_output=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout == small.read_bytes()
    assert b"of 2 channel groups changed width" in done.stderr  # what was done, where it is not in the way


def test_what_pipes_cannot_do_is_said(net: Path, small: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    share = ("--budget", "flops=50%")
    capsys.readouterr()
    assert run(["shrink", str(net), "-o", "-", *share, "--json"]) == 2
    assert "where --json prints" in read(capsys.readouterr().out, "error")["error"]["message"]
    for argv, about in {
        ("diff", "-", "-"): "stdin holds one model",
        ("verify", "-", "-", "--structure", net.parent / "s.json"): "stdin holds one model",
        ("shrink", net, "-o", net.parent / "o.onnx", *share, "--save-structure", "-"): "only models",
        ("explain", net, "k1", "--dot", "-"): "only models",
    }.items():
        assert about in refused(capsys, *argv, exit_code=2, code="usage")
    onnx.save(convnet(), net.parent / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=100)
    for data, code in {
        b"\xff" * 10: "model-unreadable",
        (net.parent / "e.onnx").read_bytes(): "model-external",
    }.items():
        monkeypatch.setattr(sys, "stdin", Stream(data))
        assert run(["analyze", "-"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: stdin: ") and err.endswith(f"  [{code}]\n")


# -- on a terminal -------------------------------------------------------------------------------

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;\d+)*m")


@pytest.mark.parametrize(("terminal", "no"), [(False, ""), (True, ""), (True, "1")])
def test_colour_is_for_terminals(
    terminal: bool, no: str, net: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert run(["analyze", str(net)]) == 0
    out = capsys.readouterr().out
    assert bool(COLOUR.search(out)) is (terminal and not no) and ("\x1b" in out) is terminal


def test_colour_of_the_help_is_for_terminals(tmp_path: Path) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    plain |= {"TERM": "xterm-256color", "GITHUB_ACTIONS": "true"}  # where typer colours all help
    command = [sys.executable, "-m", "onnxmorph", "--help"]
    in_a_file = subprocess.run(command, env=plain, capture_output=True, timeout=120)
    assert in_a_file.returncode == 0 and b"\x1b" not in in_a_file.stdout + in_a_file.stderr
    assert COLOUR.search(on_a_terminal(["--help"], tmp_path, plain)[1])
    assert not COLOUR.search(on_a_terminal(["--help"], tmp_path, {**plain, "NO_COLOR": "1"})[1])


def on_a_terminal(command: list[str], folder: Path, env: dict[str, str], until: str | None = None) -> tuple[int, str]:
    """Run with a terminal on all three streams; its exit code and what is seen. Interrupted where `until` is seen."""
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "onnxmorph", *command]
    process = subprocess.Popen(argv, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        ready, _, _ = select.select([master], [], [], 120)
        assert ready, f"nothing for two minutes after {seen!r}"
        try:
            data = os.read(master, 4096)
        except OSError:  # Linux, where the last writer has gone
            data = b""
        if not data:
            break
        seen += data
        if until is not None and until.encode() in seen:
            process.send_signal(signal.SIGINT)
            until = None
    os.close(master)
    return process.wait(timeout=60), seen.decode()


def test_long_work_shows_the_time_left_and_ends_cleanly_when_interrupted(tmp_path: Path) -> None:
    save(deep(600), tmp_path / "deep.onnx")
    argv = ["shrink", "deep.onnx", "-o", "o.onnx", "--budget", "flops=20%", "--save-structure", "s.json"]
    code, seen = on_a_terminal(argv, tmp_path, {**os.environ, "TERM": "xterm"}, until="Choosing channels")
    assert code == 130
    assert re.search(r"Choosing channels …[^\r\n]* (\d+:\d\d:\d\d|-:--:--)", re.sub(r"\x1b\[[\d;]*m", "", seen))
    assert "Traceback" not in seen and seen.count("error: interrupted; nothing was written  [interrupted]") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["deep.onnx"]


@pytest.mark.parametrize("when", ["import", "reading", "writing"])
def test_an_interrupt_ends_without_a_traceback(when: str, tmp_path: Path) -> None:
    net = save(deep(40), tmp_path / "deep.onnx")  # more than a pipe holds
    argv = ["scale", "-", "-o", "-", "--budget", "flops=100%"]
    trace = ["-X", "importtime"] if when == "import" else []
    command = [sys.executable, *trace, "-m", "onnxmorph", *argv]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, bufsize=0, **pipes) as process:
        assert process.stdin and process.stdout and process.stderr
        if when == "import":
            while b"typer" not in (line := process.stderr.readline()):
                assert line
        elif when == "reading":  # it waits for the rest; and has begun, for no pipe holds so much
            process.stdin.write(net.read_bytes()[:70_000])
            time.sleep(0.5)  # a signal between two reads is met after the second
        else:  # it waits to be read
            process.stdin.write(net.read_bytes())
            process.stdin.close()
            process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in err and err.splitlines()[-1].endswith("[interrupted]")


# -- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "completed"),
    [
        ("onnxmorph shr", ["shrink"]),
        ("onnxmorph shrink --all", ["--allow-empty"]),
        ("onnxmorph shrink m.onnx --by t", ["taylor"]),
        ("onnxmorph shrink m.onnx --budget peak", ["peak_memory="]),
        ("onnxmorph shrink m.onnx --budget flops=50%,pa", ["flops=50%,params=", "flops=50%,param_bytes="]),
        ("onnxmorph analyze m.onnx --device rasp", ["raspberry-pi-5"]),
    ],
)
def test_completion(begun: str, completed: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ONNXMORPH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", begun)
    monkeypatch.setenv("COMP_CWORD", str(len(begun.split()) - 1))
    with pytest.raises(SystemExit) as e:
        run([])
    assert e.value.code == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(completed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_completion(shell: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ONNXMORPH_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit) as e:
        run([])
    assert e.value.code == 0
    assert f"complete_{shell}" in capsys.readouterr().out
