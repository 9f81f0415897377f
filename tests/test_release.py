"""What is released: a source archive that builds the same wheel, a wheel with all that it needs, and true metadata."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import yaml

import onnxmorph
from tiny import convnet, save

ROOT = Path(onnxmorph.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PARTS = ("onnxmorph", "converters", "docs", "examples", "tests")
PYTHONS = ("3.11", "3.12", "3.13")
TRIED = """
import sys
sys.path.insert(0, sys.argv[1])
import onnxmorph
from onnxmorph.cli import run
assert onnxmorph.__file__.startswith(sys.argv[1]), onnxmorph.__file__
import onnxmorph.converters
assert onnxmorph.converters.__file__.startswith(sys.argv[1])
assert run(["--version"]) == 0
assert run(["analyze", sys.argv[2], "--device", "l4"]) == 0
assert "torch" not in sys.modules
"""


def sources(folder: Path) -> Path:
    """The tree without what was built in it."""
    folder.mkdir()
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder)
    return folder


def built(what: str, tree: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    return built("sdist", sources(folder / "tree"), folder / "dist")


@pytest.fixture(scope="module")
def wheel(archive: Path) -> Path:
    """Made from the source archive and nothing else."""
    with tarfile.open(archive) as file:
        file.extractall(archive.parent, filter="data")
    return built("wheel", archive.parent / archive.name.removesuffix(".tar.gz"), archive.parent)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(file.read(name).decode())


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"onnxmorph-{onnxmorph.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    kept = {".py", ".toml", ".typed", ".html", ".css", ".js", ".json"}
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in (("onnxmorph", "onnxmorph"), ("converters", "onnxmorph/converters"))
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kept and "__pycache__" not in path.parts
    }
    assert names == expected
    assert {"onnxmorph/py.typed", "onnxmorph/devices/l4.toml", "onnxmorph/converters/torch.py"} <= names


def test_the_source_archive_can_be_tested_and_cited(archive: Path) -> None:
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "docs/files.md"):
        assert name in names
    assert {"tests/test_release.py", "tests/golden/run/seed.onnx", "tests/functions/chosen.py", "conftest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".", "benchmarks", "out"))]


def test_the_unpacked_wheel_runs_without_the_tree_and_without_torch(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "wheel")
    net = save(convnet(), tmp_path / "net.onnx")
    command = [sys.executable, "-I", "-c", TRIED, str(tmp_path / "wheel"), str(net)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"onnxmorph {onnxmorph.__version__}" in done.stdout and "latency" in done.stdout


def test_the_metadata_say_what_is_true(wheel: Path) -> None:
    found = metadata(wheel)
    assert found["Version"] == PROJECT["version"] == onnxmorph.__version__
    declared = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", c)]
    assert tuple(declared) == PYTHONS
    assert found["Requires-Python"] == f">={PYTHONS[0]}"
    needed = [each for each in found.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(needed) == len(PROJECT["dependencies"]) and not any("torch" in each for each in needed)
    assert found["License-Expression"] == "Apache-2.0" and found["License-File"] == "LICENSE"


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (found["cff-version"], found["type"]) == ("1.2.0", "software")
    assert str(found["version"]) == onnxmorph.__version__ and found["license"] == PROJECT["license"]
    assert found["message"] and found["title"] == "onnxmorph" and found["keywords"] == PROJECT["keywords"]
    assert all("name" in a or {"family-names", "given-names"} <= a.keys() for a in found["authors"])
    assert found["references"][0]["identifiers"][0]["value"] == "arXiv:1711.06798"


def test_the_changelog_knows_this_version_and_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)[:2] == ["Unreleased", onnxmorph.__version__]


def test_no_two_decisions_have_one_number() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert sorted(numbers) == sorted(set(numbers)) and all(map(str.isdecimal, numbers))


# ---------------------------------------------------------------- into empty environments


def interpreter(version: str) -> str:
    """In $ONNXMORPH_PYTHONS (paths, with the path separator between), on the path, or this one."""
    given = os.environ.get("ONNXMORPH_PYTHONS", "").split(os.pathsep)
    for path in (*filter(None, given), sys.executable, shutil.which(f"python{version}")):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if path and subprocess.run([path, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return path
    return pytest.skip(f"there is no Python {version} here")


def environment(folder: Path, python: str, *packages: str) -> Path:
    """A new one, with these packages alone; its folder of programs."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True, timeout=300)
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", *packages, "-c", ROOT / "constraints.txt"]
    subprocess.run(list(map(str, command)), check=True, timeout=3000)
    return folder / "bin"


def told(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", ["wheel", "archive"])
def test_it_installs_alone_and_works(kind: str, version: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", interpreter(version), str(request.getfixturevalue(kind)))
    net, small, kept = save(convnet(), tmp_path / "net.onnx"), tmp_path / "small.onnx", tmp_path / "s.json"
    assert told(programs / "onnxmorph", "--version") == f"onnxmorph {onnxmorph.__version__}\n"
    assert json.loads(told(programs / "onnxmorph", "analyze", net, "--device", "l4", "--json"))["groups"]
    told(programs / "onnxmorph", "shrink", net, "-o", small, "--budget", "flops=50%", "--save-structure", kept)
    told(programs / "onnxmorph", "verify", net, small, "--structure", kept)
    told(programs / "python", "-m", "pip", "check")
    refused = subprocess.run(
        [programs / "onnxmorph", "demo", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert json.loads(refused.stdout)["error"]["code"] == "demo-missing"


@pytest.mark.nightly
def test_it_installs_with_torch_and_trains(wheel: Path, tmp_path: Path) -> None:
    pinned = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    programs = environment(tmp_path / "venv", sys.executable, pinned[0], f"{wheel}[torch]", "scikit-learn")
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "train.py").write_text(block[0])
    export = "import train; from onnxmorph.converters.torch import export; "
    told(programs / "python", "-c", f"import os; os.chdir({str(tmp_path)!r}); import sys; sys.path.insert(0, '.'); "
         f"{export}export(train.network, train.images[:2], 'model.onnx')")  # fmt: skip
    budget = ("--budget", "flops=100%", "--rounds", 1)
    told(programs / "onnxmorph", "morph", f"{tmp_path / 'train.py'}:train", tmp_path / "model.onnx",
         *budget, "--output", tmp_path / "run")  # fmt: skip
    assert (tmp_path / "run" / "final" / "trained.onnx").exists()


@pytest.mark.nightly
def test_the_citation_is_valid(tmp_path: Path) -> None:
    programs = tmp_path / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=300)
    told(programs / "python", "-m", "pip", "install", "-q", "cffconvert>=2")
    told(programs / "cffconvert", "--validate", "-i", ROOT / "CITATION.cff")
