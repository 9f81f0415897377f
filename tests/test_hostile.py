"""Files that are broken, or meant to harm: one sentence, the right exit code, nothing read, allocated or written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from documents import read
from onnxmorph import analyze
from onnxmorph.cli import run
from tiny import MLP, integer, integers, mlp, model, node, save, value, weight

Capture = pytest.CaptureFixture[str]
State = Mapping[str, tuple[bytes, int] | None]


def folder_state(folder: Path) -> State:
    """Every file below a folder, its bytes and its time."""
    files = {p: p.stat(follow_symlinks=False) for p in sorted(folder.rglob("*"))}
    return {
        str(p): (p.read_bytes(), stat.st_mtime_ns) if p.is_file() and not p.is_symlink() else None
        for p, stat in files.items()
    }


def refused(capsys: Capture, *argv: object, exit_code: int = 1) -> tuple[str, str]:
    """Run to an error; the code and the sentence."""
    capsys.readouterr()
    assert run([*map(str, argv), "--json"]) == exit_code
    out, err = capsys.readouterr()
    assert err == ""
    error = read(out, "error")["error"]
    assert run([*map(str, argv)]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.endswith(f"  [{error['code']}]\n") and err.count("\n") == 1
    assert err.rstrip("\n").isprintable() and "Traceback" not in err and "bug of onnxmorph" not in err
    return error["code"], error["message"]


def accepted(capsys: Capture, *argv: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*map(str, argv), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = read(out)
    assert isinstance(found, dict)
    return found


# -- models that cannot be read ------------------------------------------------------------------

A, B = weight("a", 4, 8), weight("b", 8, 3)


def with_a(dims: list[int], kind: int = TensorProto.FLOAT, raw: bytes | None = None) -> onnx.ModelProto:
    """The MLP, whose first weight claims to be this."""
    tensor = TensorProto(name="a", data_type=kind, dims=dims)
    if raw is not None:
        tensor.raw_data = raw
    return model(MLP, [tensor, B])


def edited(edit: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = mlp()
    edit(proto)
    return proto


def delimited(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds a message or a text."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length % 128 + 128]), length // 128
    return bytes([number * 8 + 2 & 127 | 128 * (number > 15), *([number >> 4] if number > 15 else [])]) + (
        size + bytes([length]) + content
    )


def nested(depth: int) -> bytes:
    """If in If in If …, deeper than any library would write it."""
    result = value("o", [1, 4]).SerializeToString()
    body = delimited(1, node("Relu", "x", "o").SerializeToString()) + delimited(2, b"g") + delimited(12, result)
    for _ in range(depth):
        branches = b"".join(
            delimited(5, delimited(1, name) + delimited(6, body) + b"\xa0\x01\x05")
            for name in (b"then_branch", b"else_branch")[:1]
        )
        choice = delimited(1, b"c") + delimited(2, b"o") + delimited(4, b"If") + branches
        body = delimited(1, choice) + delimited(2, b"g") + delimited(12, result)
    inputs = [value("x", [1, 4]), value("c", [], TensorProto.BOOL)]
    body += b"".join(delimited(11, v.SerializeToString()) for v in inputs)
    return b"\x08\x0a" + delimited(7, body) + delimited(8, b"\x0a\x00\x10\x11")


def recursive() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    itself = helper.make_function("f", "F", ["a"], ["b"], [node("F", "a", "b", domain="f")], opsets)
    return model([node("F", "x", "y", domain="f")], domains=["f"], functions=[itself])


def laughs(levels: int = 30) -> onnx.ModelProto:
    """Every function calls the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [node("Relu", "a", "b")], opsets)]
    for i in range(1, levels):
        twice = [node(f"F{i - 1}", "a", "c", domain="f"), node(f"F{i - 1}", "c", "b", domain="f")]
        functions.append(helper.make_function("f", f"F{i}", ["a"], ["b"], twice, opsets))
    return model([node(f"F{levels - 1}", "x", "y", domain="f")], domains=["f"], functions=functions)


WHOLE = mlp().SerializeToString()
HUGE = 2**31
BROKEN: Mapping[str, tuple[bytes | onnx.ModelProto, str]] = {
    "text": (b"hello world, this is no model\n" * 10, "model-unreadable"),
    "noise": (np.random.default_rng(0).bytes(3000), "model-unreadable"),
    "empty": (b"", "model-empty"),
    **{f"cut {n}": (WHOLE[:n], "model-unreadable") for n in (1, 10, len(WHOLE) // 4, len(WHOLE) // 2, len(WHOLE) - 1)},
    "cut 2": (WHOLE[:2], "model-empty"),
    "no nodes": (model([], outputs=[value("x", [1, 4])]), "model-empty"),
    "opset 6": (model(MLP, [A, B], opset=6), "model-opset"),
    "opset 99": (model(MLP, [A, B], opset=99), "model-opset"),
    "no opset": (edited(lambda m: m.ClearField("opset_import")), "model-opset"),
    "IR 999": (edited(lambda m: setattr(m, "ir_version", 999)), "model-ir"),
    "dims that lie": (with_a([HUGE, HUGE]), "model-tensor"),
    "dims beyond 64 bits": (with_a([2**62, 2**62]), "model-tensor"),
    "dims with less data": (with_a([4, 8], raw=b"1234"), "model-tensor"),
    "one byte too few": (with_a([4, 8], raw=b"1" * 127), "model-tensor"),
    "negative dims": (with_a([-4, -8], raw=b"1" * 128), "model-tensor"),
    "a negative dim": (with_a([-1, 8], raw=b""), "model-tensor"),
    "no type": (with_a([4, 8], 0, b"1" * 128), "model-tensor"),
    "type 99": (with_a([4, 8], 99, b"1" * 128), "model-unreadable"),
    "more data than dims": (with_a([4, 8], TensorProto.INT64, b"1" * 1024), "model-tensor"),
    "input of type 99": (model(MLP, [A, B], [value("x", [1, 4], 99)]), "model-unreadable"),
    "input without a shape": (model(MLP, [A, B], [value("x", None)]), "model-input"),
    "input beyond any memory": (model(MLP, [A, B], [value("x", [2**62, 4])]), "model-size"),
    "cycle": (model([node("Add", "x c", "b"), node("Relu", "b", "c"), node("Relu", "c", "y")]), "model-cycle"),
    "output written twice": (model([node("Relu", "x", "h"), node("Abs", "x", "h")]), "model-unreadable"),
    "input overwritten": (model([node("Relu", "x", "x"), node("Relu", "x", "y")]), "model-unreadable"),
    "undefined input": (model([node("Add", "x nowhere", "y")]), "model-undefined"),
    "undefined output": (model([node("Relu", "x", "h")]), "model-undefined"),
    "too few inputs": (model([node("Gemm", "x", "y")]), "model-shape"),
    "shapes that do not fit": (model([node("Gemm", "x a", "y")], [weight("a", 5, 3)]), "model-shape"),
    "attribute of another type": (model([node("Gemm", "x a", "y", transB="no")], [weight("a", 4, 3)]), "model-shape"),
    "attribute of no op": (model([node("Gemm", "x a", "y", frob=1)], [weight("a", 4, 3)]), "model-shape"),
    "axis 9": (model([node("Concat", "x x", "y", axis=9)]), "model-shape"),
    "a function that calls itself": (recursive(), "model-functions"),
    "a billion laughs": (laughs(), "model-functions"),
    "nesting": (nested(200), "model-unreadable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_and_nothing_is_written(name: str, tmp_path: Path, capsys: Capture) -> None:
    content, expected = BROKEN[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    kept = tmp_path / "old.onnx"
    kept.write_bytes(b"precious")
    before = folder_state(tmp_path)
    code, message = refused(capsys, "analyze", path)
    assert code == expected, message
    assert str(path) in message or "tensor" in message
    for argv in (
        ("shrink", path, "-o", tmp_path / "o.onnx", "--budget", "params=50%", "--save-structure", tmp_path / "s.json"),
        ("scale", path, "-o", kept, "--budget", "params=50%"),
    ):
        assert refused(capsys, *argv)[0] == expected
    assert folder_state(tmp_path) == before


def test_a_folder_and_a_missing_file_are_no_models(tmp_path: Path, capsys: Capture) -> None:
    assert refused(capsys, "analyze", tmp_path)[0] == "model-missing"
    assert refused(capsys, "analyze", tmp_path / "none.onnx")[0] == "model-missing"


def test_protos_are_checked_like_files() -> None:
    from onnxmorph.errors import ModelError

    for content, _ in BROKEN.values():
        if isinstance(content, onnx.ModelProto):
            with pytest.raises(ModelError):
                analyze(content)


def test_a_byte_changed_anywhere_is_no_traceback(tmp_path: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(0)
    path, out = tmp_path / "m.onnx", tmp_path / "o.onnx"
    for _ in range(150):
        data = bytearray(WHOLE)
        for at in rng.integers(0, len(data), 2):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        assert run(["shrink", str(path), "-o", str(out), "--budget", "params=80%", "--json"]) in (0, 1)
        found = capsys.readouterr()
        assert json.loads(found.out).get("error", {}).get("code") not in ("bug", "memory", "system", "depth"), found.out
        assert found.err == ""


# -- models that are odd, and fine ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "domain", "imported"), [("Frob", "acme", True), ("Frob", "acme", False), ("Frobnicate", "", False)]
)
def test_unknown_ops_are_fixed_and_reported(
    op: str, domain: str, imported: bool, tmp_path: Path, capsys: Capture
) -> None:
    nodes = [MLP[0], node(op, "h", "r", domain=domain), MLP[2]]
    path = save(model(nodes, [A, B], domains=[domain] if imported else []), tmp_path / "m.onnx")
    found = accepted(capsys, "analyze", path)
    assert found["groups"] == []
    assert found["uncovered"][0]["op"] == op and found["uncovered"][0]["code"] == "unknown-op"
    assert "unknown-op" in {f["code"] for f in found["fixed"]}


def test_a_negative_dim_of_an_input_is_dynamic(tmp_path: Path, capsys: Capture) -> None:
    path = save(model(MLP, [A, B], [value("x", [-1, 4])]), tmp_path / "m.onnx")
    plain = save(mlp(), tmp_path / "p.onnx")
    assert accepted(capsys, "analyze", path)["costs"] == accepted(capsys, "analyze", plain)["costs"]


def test_moderate_nesting_is_read(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(15))
    assert refused(capsys, "analyze", path)[0] in ("model-undefined", "model-shape")  # read, and found wanting


def test_an_index_out_of_range_is_left_to_the_runtime(tmp_path: Path, capsys: Capture) -> None:
    nodes = [node("Gather", "a i", "h"), node("Add", "x h", "y")]
    path = save(
        model(nodes, [weight("a", 4, 4), integers("i", 999)], outputs=[value("y", [1, 4])]), tmp_path / "m.onnx"
    )
    assert {u["code"] for u in accepted(capsys, "analyze", path)["uncovered"]} == {"index"}


def test_fifty_thousand_nodes(tmp_path: Path) -> None:
    names = ["x", *(f"t{i}" for i in range(49_999)), "y"]
    nodes = [node("Relu", a, b) for a, b in pairwise(names)]
    path = save(model(nodes, outputs=[value("y", ["n", 4])]), tmp_path / "m.onnx")
    analysis = analyze(path)
    assert analysis.costs["flops"].value(analysis.widths) == 4 * 50_000


# -- bombs ---------------------------------------------------------------------------------------


def summed(op: str, inputs: str, initializers: list[TensorProto], **attributes: object) -> onnx.ModelProto:
    """An op over constants, whose sum is added to the input."""
    nodes = [
        node(op, inputs, "z", **attributes),
        node("ReduceSum", "z", "t", keepdims=0),
        node("Cast", "t", "u", to=1),
        node("Add", "x u", "y"),
    ]
    return model(nodes, initializers, outputs=[value("y", ["n", 4])])


COLUMN = numpy_helper.from_array(np.zeros((2**16, 1), np.int64), "p")
ROW = numpy_helper.from_array(np.zeros((1, 2**16), np.int64), "q")
MANY = numpy_helper.from_array(np.zeros(2**16, np.int64), "i")
AFTER = [node("Gemm", "x a", "h")]
BOMBS: Mapping[str, onnx.ModelProto] = {
    "ConstantOfShape": summed("ConstantOfShape", "s", [integers("s", 2**20, 2**20)]),
    "ConstantOfShape, reshaped to": model(
        [node("ConstantOfShape", "s", "z"), node("Shape", "z", "k"), node("Reshape", "x k", "y")],
        [integers("s", HUGE, HUGE)],
    ),
    "Range": summed("Range", "p q r", [integer("p", 0), integer("q", 2**40), integer("r", 1)]),
    "Range, step 0": summed("Range", "p q r", [integer("p", 0), integer("q", 5), integer("r", 0)]),
    "Expand": summed("Expand", "k s", [integers("k", 3), integers("s", 2**40)]),
    "Expand, of the input": model([node("Expand", "x s", "y")], [integers("s", HUGE, HUGE, 1, 4)]),
    "Tile": summed("Tile", "k s", [integers("k", 3), integers("s", 2**40)]),
    "Pad": summed("Pad", "p s", [integers("p", 1), integers("s", 2**34, 0)]),
    "OneHot": summed("OneHot", "p d v", [integers("p", 1), integer("d", 2**34), integers("v", 0, 1)]),
    "outer sum": summed("Add", "p q", [COLUMN, ROW]),
    "outer product": summed("MatMul", "p q", [COLUMN, ROW]),
    "Gather": summed("Gather", "q i", [ROW, MANY]),
    "Concat": summed("Concat", " ".join(["p"] * 50_000), [COLUMN], axis=0),
    "Pad, of channels": model([*AFTER, node("Pad", "h s", "y")], [A, integers("s", 0, 2**34, 0, 2**34)]),
    "Reshape, of channels": model(
        [*AFTER, node("Expand", "h s", "z"), node("Reshape", "z k", "y")],
        [A, integers("s", 2**30, 1, 8), integers("k", -1)],
        outputs=[value("y", [None])],
    ),
}
LIMITED = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from onnxmorph.cli import run
for path in sys.argv[1:]:
    assert run(["analyze", path, "--json"]) in (0, 1), path
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on memory")
def test_bombs_do_not_go_off(tmp_path: Path) -> None:
    paths = [save(proto, tmp_path / f"{i}.onnx") for i, proto in enumerate(BOMBS.values())]
    command = [sys.executable, "-c", LIMITED, *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **ONE_THREAD})
    assert (result.returncode, result.stderr) == (0, "")
    decoder, rest, found = json.JSONDecoder(), result.stdout.strip(), []
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    codes = {name: d.get("error", {}).get("code", "fine") for name, d in zip(BOMBS, found, strict=True)}
    assert set(codes.values()) <= {"fine", "model-size"}, codes


ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread reserves address space


# -- weights in other files ----------------------------------------------------------------------


def external(location: str, offset: object = 0, length: object = 128) -> onnx.ModelProto:
    tensor = TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[4, 8], data_location=TensorProto.EXTERNAL)
    for key, entry in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(entry))
    return model(MLP, [tensor, B])


EXTERNAL: Mapping[str, tuple[onnx.ModelProto, str]] = {
    "missing": (external("none.bin"), "model-external"),
    "cut short": (external("short.bin"), "model-external"),
    "past the end": (external("w.bin", offset=1000), "model-external"),
    "too long": (external("w.bin", length=10**12), "model-external"),
    "too short for its shape": (external("w.bin", length=64), "model-external"),
    "negative offset": (external("w.bin", offset=-4), "model-unreadable"),
    "an offset that is no number": (external("w.bin", offset="many"), "model-unreadable"),
    "dots": (external("../secret.bin"), "model-external"),
    "dots within": (external("sub/../../secret.bin"), "model-external"),
    "absolute": (external("/dev/zero"), "model-external"),
    "link": (external("link.bin"), "model-external"),
    "hard link": (external("hard.bin"), "model-external"),
    "link of a folder": (external("outside/secret.bin"), "model-external"),
    "link to itself": (external("loop.bin"), "model-external"),
    "pipe": (external("pipe.bin"), "model-external"),
    "folder": (external("sub"), "model-external"),
    "nothing": (external(""), "model-external"),
    "NUL": (external("w\0.bin"), "model-external"),
}


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with weights, and with ways out of it."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 1000)
    (folder / "w.bin").write_bytes(np.ones((4, 8), np.float32).tobytes())
    (folder / "short.bin").write_bytes(b"1" * 10)
    (folder / "link.bin").symlink_to(secret)
    (folder / "hard.bin").hardlink_to(secret)
    (folder / "outside").symlink_to(tmp_path)
    (folder / "loop.bin").symlink_to("loop.bin")
    (folder / "inside.bin").symlink_to("w.bin")
    os.mkfifo(folder / "pipe.bin")
    return folder


@pytest.mark.parametrize("name", EXTERNAL)
def test_weights_are_read_from_the_folder_of_the_model_only(
    name: str, beside: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto, expected = EXTERNAL[name]
    path = save(proto, beside / "m.onnx")
    before = folder_state(beside)
    assert refused(capsys, "analyze", path)[0] == expected
    monkeypatch.chdir(beside)  # where the folder of the model is the empty path
    assert refused(capsys, "shrink", "m.onnx", "-o", "o.onnx", "--budget", "params=50%")[0] == expected
    assert folder_state(beside) == before


@pytest.mark.parametrize("location", ["w.bin", "inside.bin", "sub/../w.bin"])
def test_weights_beside_the_model_are_read(location: str, beside: Path, capsys: Capture) -> None:
    path = save(external(location), beside / "m.onnx")
    accepted(capsys, "shrink", path, "-o", beside / "o.onnx", "--budget", "params=50%", "--by", "random")


def test_weights_of_bodies_are_checked_too(beside: Path, capsys: Capture) -> None:
    secret = external("../secret.bin").graph.initializer[0]
    body = helper.make_graph([node("Gemm", "x a", "o")], "body", [], [value("o", [1, 8])], [secret])
    choice = node("If", "c", "y", then_branch=body, else_branch=body)
    inputs = [value("x", [1, 4]), value("c", [], TensorProto.BOOL)]
    path = save(model([choice], [], inputs, [value("y", [1, 8])]), beside / "m.onnx")
    assert refused(capsys, "analyze", path)[0] == "model-external"


def test_a_pipe_does_not_hang(beside: Path) -> None:
    path = save(external("pipe.bin"), beside / "m.onnx")
    command = [sys.executable, "-m", "onnxmorph.cli", "analyze", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.endswith("[model-external]\n")


# -- names ---------------------------------------------------------------------------------------

NAMES = {
    "path": "../../etc/x",
    "HTML": "<script>alert(1)</script>",
    "terminal": "\x1b[31mred\x07\x9b2J",
    "markup": "[bold]b[/bold][link=x]",
    "line breaks": "a\nb\rc\td",
    "right to left": "\u202eevil\u200b",
    "long": "layer." * 500,
    "emoji": ":smile:",
}


@pytest.mark.parametrize("evil", NAMES.values(), ids=NAMES)
def test_names_are_only_names(evil: str, tmp_path: Path, capsys: Capture) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", evil], ["h"], name=evil),
        helper.make_node(f"Op{evil}", ["h"], [f"u{evil}"], name=evil, domain=evil),
        helper.make_node("Gemm", ["h", "b"], ["y"], name=f"2{evil}"),
    ]
    outputs = [value("y", [1, 3]), value(f"u{evil}", [1, 8])]
    path = save(model(nodes, [weight(evil, 4, 8), B], outputs=outputs, domains=[evil]), tmp_path / "m.onnx")
    assert run(["analyze", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == "" and all(c.isprintable() or c == "\n" for c in out)
    assert max(len(text) for text in out.splitlines() if str(path) not in text) <= 80
    if evil.startswith(("[", ":")):
        assert evil in out.replace("\n", "")  # drawn as it is, and neither styled nor replaced
    found = accepted(capsys, "analyze", path)
    assert found["fixed"][0]["tensor"] == evil

    plain = model([nodes[0], nodes[2]], [weight(evil, 4, 8), B])
    small, kept = tmp_path / "o.onnx", tmp_path / "s.json"
    path = save(plain, tmp_path / "p.onnx")
    shrunk = accepted(capsys, "shrink", path, "-o", small, "--budget", "params=50%", "--save-structure", kept)
    assert list(shrunk["widths"]) == [f"{evil}:1"]
    assert accepted(capsys, "verify", path, small, "--structure", kept)["ok"]
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "p.onnx", "o.onnx", "s.json"}


# -- structures ----------------------------------------------------------------------------------


@pytest.fixture
def structure(tmp_path: Path, capsys: Capture) -> dict[str, Any]:
    """A structure of the MLP in m.onnx."""
    path, kept = save(mlp(), tmp_path / "m.onnx"), tmp_path / "s.json"
    accepted(capsys, "shrink", path, "-o", tmp_path / "o.onnx", "--budget", "flops=50%", "--save-structure", kept)
    found = json.loads(kept.read_text())
    assert isinstance(found, dict)
    return found


def group(**changes: object) -> dict[str, object]:
    return {"groups": [{"id": "a:1", "width": 8, "keep": [1, 2], **changes}]}


STRUCTURES: Mapping[str, tuple[str | dict[str, object], str]] = {
    "nothing": ("", "structure"),
    "no JSON": ("nope", "structure"),
    "cut": ('{"version": 1, "groups": [', "structure"),
    "deep": ("[" * 100_000, "structure"),
    "null": ("null", "structure"),
    "a list": ("[1]", "structure"),
    "no version": ("{}", "structure"),
    "newer": ({"version": 2}, "structure-version"),
    "no groups": ({"groups": None}, "structure"),
    "groups of another model": (group(id="z:1"), "structure-groups"),
    "another width": (group(width=9), "structure-groups"),
    "fewer groups": ({"groups": []}, "structure-groups"),
    "another model": ({"model": "0123456789abcdef"}, "structure-model"),
    "index too large": (group(keep=[0, 8]), "structure"),
    "negative index": (group(keep=[-1, 0]), "structure"),
    "fraction": (group(keep=[0, 1.5]), "structure"),
    "text for a number": (group(keep=["0"]), "structure"),
    "truth for a number": (group(keep=[True]), "structure"),
    "keep is no list": (group(keep=3), "structure"),
    "width is no number": (group(width="8"), "structure"),
    "nothing kept": (group(keep=[]), "topology-output"),
    "provenance is no object": ({"provenance": [1]}, "structure"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_wrong_structure_is_refused(name: str, structure: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    changes, expected = STRUCTURES[name]
    kept, net, small = tmp_path / "s.json", tmp_path / "m.onnx", tmp_path / "o.onnx"
    kept.write_text(changes if isinstance(changes, str) else json.dumps({**structure, **changes}))
    before = folder_state(tmp_path)
    commands: list[tuple[object, ...]] = [
        ("shrink", net, "-o", small, "--structure", kept),
        ("expand", net, "-o", small, "--structure", kept, "--budget", "flops=100%"),
    ]
    if expected != "topology-output":
        commands.append(("verify", net, small, "--structure", kept))
    for argv in commands:
        code, message = refused(capsys, *argv)
        assert code == expected, message
    assert folder_state(tmp_path) == before


def test_names_in_provenance_are_only_names(structure: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    kept = tmp_path / "s.json"
    kept.write_text(json.dumps({**structure, "provenance": {"analysis": 1, "copies": 2, "method": "by hand"}}))
    accepted(capsys, "shrink", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--structure", kept)


@pytest.mark.parametrize("path", ["none.json", ".", "/dev/zero"])
def test_a_structure_that_is_no_file(path: str, tmp_path: Path, capsys: Capture) -> None:
    net = save(mlp(), tmp_path / "m.onnx")
    assert refused(capsys, "shrink", net, "-o", tmp_path / "o.onnx", "--structure", path)[0] == "structure-file"


def test_a_model_that_does_not_belong_to_the_structure(
    structure: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    other = save(mlp(16), tmp_path / "other.onnx")
    kept = tmp_path / "s.json"
    assert refused(capsys, "verify", other, tmp_path / "o.onnx", "--structure", kept)[0] == "structure-model"
    stranger = save(model([node("Relu", "x", "z")], outputs=[value("z", [1, 4])]), tmp_path / "z.onnx")
    assert refused(capsys, "verify", tmp_path / "m.onnx", stranger, "--structure", kept)[0] == "verify-model"


def test_a_model_that_the_runtime_refuses(tmp_path: Path, capsys: Capture) -> None:
    nodes = [MLP[0], MLP[1], MLP[2], node("Frob", "x", "z", domain="acme")]
    proto = model(nodes, [A, B], outputs=[value("y", [1, 3]), value("z", [1, 4])], domains=["acme"])
    net, small, kept = save(proto, tmp_path / "m.onnx"), tmp_path / "o.onnx", tmp_path / "s.json"
    accepted(capsys, "shrink", net, "-o", small, "--budget", "params=50%", "--save-structure", kept)
    assert refused(capsys, "verify", net, small, "--structure", kept)[0] == "runtime"


# -- budgets -------------------------------------------------------------------------------------


def test_a_budget_out_of_reach_names_the_smallest_cost(tmp_path: Path, capsys: Capture) -> None:
    net, out = save(mlp(), tmp_path / "m.onnx"), tmp_path / "o.onnx"
    analysis = analyze(net)
    smallest = analysis.costs["params"].value(np.ones(1, np.int64))
    assert smallest == 7
    for command in ("shrink", "scale"):
        code, message = refused(capsys, command, net, "-o", out, "--budget", "params=1%")
        assert code == "budget-reach" and f"cannot go below {smallest} " in message and "12.5%" in message
    assert not out.exists()


@pytest.mark.parametrize("budget", ["flops=1e9%", "flops=1e29%", "params=1e28"])
def test_a_budget_beyond_reason_is_refused(budget: str, tmp_path: Path, capsys: Capture) -> None:
    net, out = save(mlp(), tmp_path / "m.onnx"), tmp_path / "o.onnx"
    assert refused(capsys, "scale", net, "-o", out, "--budget", budget)[0] == "budget-size"
    assert not out.exists()


# -- outputs -------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: Capture) -> None:
    net = save(mlp(), tmp_path / "m.onnx")
    (tmp_path / "folder").mkdir()
    before = folder_state(tmp_path)
    share = ("--budget", "flops=50%")
    good = ("shrink", net, "-o", tmp_path / "o.onnx", *share)
    for argv in (
        ("shrink", net, "-o", tmp_path / "none" / "o.onnx", *share),
        ("shrink", net, "-o", tmp_path / "folder", *share),
        ("shrink", net, "-o", net / "o.onnx", *share),
        ("shrink", net, "-o", os.devnull, *share),
        ("scale", net, "-o", tmp_path / "none" / "o.onnx", *share),
        (*good, "--save-structure", tmp_path / "folder"),
        (*good, "--save-structure", tmp_path / "none" / "s.json"),
    ):
        assert refused(capsys, *argv)[0] == "output", argv
    assert folder_state(tmp_path) == before
    assert not Path(os.devnull).is_file()


def test_a_folder_that_is_read_only(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    net, locked = save(mlp(), tmp_path / "m.onnx"), tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked)  # root may write anywhere
    code, message = refused(capsys, "shrink", net, "-o", locked / "o.onnx", "--budget", "flops=50%")
    assert code == "output" and "read-only" in message


def test_a_disk_that_fills_up_leaves_the_old_output(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, out = save(mlp(), tmp_path / "m.onnx"), tmp_path / "o.onnx"
    out.write_bytes(b"precious")
    before = folder_state(tmp_path)

    def full(model: object, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_ir.save", full)
    code, message = refused(capsys, "shrink", net, "-o", out, "--budget", "flops=50%")
    assert code == "output" and "No space left" in message
    assert folder_state(tmp_path) == before


def test_a_text_that_cannot_be_serialised_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    data = mlp().SerializeToString().replace(b"tiny", b"t\xff\xfey")
    net = tmp_path / "m.onnx"
    net.write_bytes(data)
    before = folder_state(tmp_path)
    assert refused(capsys, "shrink", net, "-o", tmp_path / "o.onnx", "--budget", "flops=50%")[0] == "output"
    assert folder_state(tmp_path) == before
