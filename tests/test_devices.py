"""Device files: what ships, how names are found, and what is said of a file that is not one."""

from __future__ import annotations

import re
import shutil
import zipfile
from importlib.resources import files
from pathlib import Path

import onnx_ir as ir
import pytest
from setuptools import build_meta

import onnxmorph
from onnxmorph.errors import DeviceError
from onnxmorph.latency import known, load

GOOD = """
version = 1
title = "Box"
bandwidth = 100e9
overhead = 1e-6
[peak]
float32 = 1e12
"""
ROOT = Path(onnxmorph.__file__).parents[1]


def read(tmp_path: Path, text: str | bytes) -> onnxmorph.latency.Device:
    path = tmp_path / "box.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


# -- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", known())
def test_every_device_reads_and_every_number_has_its_source(name: str) -> None:
    device = load(name)
    assert device.name == name and device.title != name and device.modelled
    lines = (files("onnxmorph.devices") / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    numbers = [line for line in lines if re.match(r"\w+ = [\d.]", line) and not line.startswith("version")]
    assert len(numbers) >= 3
    assert all(re.search(r" # \w.{8}", line) for line in numbers)


# In GFLOP/s and GB/s, from resource_function.py of MorphNet.
@pytest.mark.parametrize(
    ("name", "peak", "bandwidth"),
    [
        ("K80", 8740, 480),
        ("P4", 5500, 192),
        ("T4", 8100, 300),
        ("P100", 9300, 732),
        ("V100", 125000, 900),
        ("TPUv2", 22500, 300),
    ],
)
def test_the_table_of_the_original(name: str, peak: int, bandwidth: int) -> None:
    device = load(name)
    assert (device.classic_peak, device.classic_bandwidth) == (peak * 1e9, bandwidth * 1e9)


def test_the_wheel_holds_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("onnxmorph", "converters"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path)
    monkeypatch.chdir(tmp_path)
    name = build_meta.build_wheel(str(tmp_path))
    held = zipfile.ZipFile(tmp_path / name).namelist()
    assert {f"onnxmorph/devices/{device}.toml" for device in known()} <= set(held)


def test_the_document_shows_a_file_and_names_every_device(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml[^\n]*\n(.*?)```", text, re.DOTALL)
    assert read(tmp_path, example).alignment == {"float16": 8, "int8": 16}
    (listed,) = re.findall(r"## The devices that ship\n\n(.*?)\. Peaks", text, re.DOTALL)
    assert re.findall(r"`([\w-]+)`", listed) == list(known())


# -- names and files -----------------------------------------------------------------------------


def test_an_unknown_name_lists_the_nearest_and_all() -> None:
    with pytest.raises(DeviceError, match=r"no device 'v1000'; the nearest are v100.*; there are a100, .*xeon") as e:
        load("v1000")
    assert e.value.code == "device-name"


@pytest.mark.parametrize("name", ["", "x" * 5000, "nul\0l"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(DeviceError):
        load(name)


def test_a_device_that_ships_comes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t4").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("T4").name == "t4"


def test_a_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load("mine").title == load(tmp_path / "mine").title == "Box"


def test_types_without_a_peak_compute_in_a_wider_one(tmp_path: Path) -> None:
    device = read(tmp_path, GOOD + "float16 = 4e12\nint8 = 8e12\n[alignment]\nint8 = 16\n")
    kinds = ir.DataType
    wanted = {
        kinds.FLOAT: 1e12, kinds.FLOAT16: 4e12, kinds.BFLOAT16: 1e12, kinds.FLOAT8E4M3FN: 4e12, kinds.UINT8: 8e12,
        kinds.INT4: 8e12, kinds.INT64: 1e12, kinds.BOOL: 1e12,
    }  # fmt: skip
    assert {kind: device.peak(kind) for kind in wanted} == wanted
    assert [device.multiple(kind) for kind in (kinds.UINT8, kinds.INT4, kinds.FLOAT)] == [16, 16, 1]
    with pytest.raises(DeviceError, match="computes in float64, for which it has no peak") as e:
        device.peak(kinds.DOUBLE)
    assert e.value.code == "device-peak"


def test_what_was_measured_stands_by_itself_and_is_kept_as_it_is(tmp_path: Path) -> None:
    device = read(tmp_path, "version = 1\n[measured]\nops = [{ name = 'Conv', terms = [1.0, 2] }]\n")
    assert device.measured == {"ops": [{"name": "Conv", "terms": [1.0, 2]}]}
    assert not device.modelled
    both = read(tmp_path, GOOD + "[measured]\n")
    assert both.measured == {} and both.modelled


# -- files that are not as they should be --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (GOOD.replace("version = 1", ""), "device-key", "box.toml: version: missing"),
        (GOOD.replace("version = 1", "version = 2"), "device-version", "reads 1, not 2"),
        (GOOD.replace("version = 1", "version = true"), "device-value", "version: expected a whole number"),
        (GOOD.replace("100e9", "0"), "device-value", "bandwidth: expected a number from 1 to 1e24, found 0"),
        (GOOD.replace("100e9", "-1.0"), "device-value", "bandwidth: .* found -1.0"),
        (GOOD.replace("100e9", "nan"), "device-value", "bandwidth: .* found nan"),
        (GOOD.replace("100e9", "inf"), "device-value", "bandwidth: .* found inf"),
        (GOOD.replace("100e9", "true"), "device-value", "bandwidth: .* found True"),
        (GOOD.replace("100e9", '"fast"'), "device-value", "bandwidth: .* found 'fast'"),
        (GOOD.replace("bandwidth = 100e9", ""), "device-key", "bandwidth: missing"),
        (GOOD.replace("100e9", "1e-300"), "device-value", "bandwidth: .* found 1e-300"),
        (GOOD.replace("1e-6", "-1e-6"), "device-value", "overhead: expected a number of seconds from 0 to 60"),
        (GOOD.replace("overhead = 1e-6", ""), "device-key", "overhead: missing"),
        (GOOD.replace('"Box"', "7"), "device-value", "title: expected a text"),
        (GOOD.replace("float32 = 1e12", ""), "device-key", "peak.float32: missing; expected a number from 1 to 1e24"),
        (GOOD.replace("[peak]\nfloat32 = 1e12", ""), "device-key", "peak: missing; expected a table"),
        (GOOD.replace("[peak]\nfloat32", "peak"), "device-value", "peak: expected a table"),
        (GOOD + "float31 = 1e12", "device-key", "peak.float31: unknown; expected float32, float64, float16"),
        (GOOD + "[alignment]\nfloat16 = 8.0", "device-value", "alignment.float16: expected a whole number from 1"),
        (GOOD + "[alignment]\nfloat16 = 0", "device-value", "alignment.float16: .* found 0"),
        (GOOD + "[classic]\npeak = 0", "device-value", "classic.peak: expected a number from 1 to 1e24"),
        (GOOD + "[clasic]\npeak = 1", "device-key", "clasic: unknown; expected version, .*classic"),
        (GOOD + "[measured]\n[measured]", "device-file", "not TOML"),
        ("version = [" * 5000, "device-file", "not TOML"),
        ("version = 1" + "0" * 5000, "device-file", "not TOML"),
        (GOOD.replace("100e9", "1" + "0" * 400), "device-value", "bandwidth: expected a number from 1 to 1e24"),
        (GOOD.replace("Box", "B\xf6x").encode("latin-1"), "device-file", "not UTF-8"),
        (b"\x00" * 20_000_000, "device-file", "no device file is larger than 16,000,000 bytes"),
    ],
)
def test_a_bad_file(tmp_path: Path, text: str | bytes, code: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message) as e:
        read(tmp_path, text)
    assert e.value.code == code
    assert "box.toml" in str(e.value) and len(str(e.value)) < 400


@pytest.mark.parametrize("name", ["there/is/none", "none.toml", "nul\0l.toml"])
def test_a_missing_file(name: str) -> None:
    with pytest.raises(DeviceError) as e:
        load(name)
    assert e.value.code == "device-file"


def test_a_directory_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no such file") as e:
        load(tmp_path)
    assert e.value.code == "device-file"
