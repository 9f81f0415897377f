"""Devices: what one can do at best, read from TOML files (docs/devices.md).

    version = 1
    title = "My accelerator"
    bandwidth = 300e9  # bytes per second
    overhead = 5e-6    # seconds to start a kernel

    [peak]             # operations per second, by type
    float32 = 8.1e12

    [alignment]        # optional: widths that are multiples of this run best, by type
    float32 = 8

    [classic]          # optional: what the original takes for this device
    peak = 8.1e12
    bandwidth = 300e9

A table ``[measured]`` stands instead of all numbers, or beside them: what was measured on the device.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

import onnx_ir as ir

from onnxmorph.errors import DeviceError
from onnxmorph.formats import A_VERSION, refusal, version_of
from onnxmorph.reading import (
    MULTIPLE,
    RATE,
    SECONDS,
    Reader,
    Table,
    is_multiple,
    is_rate,
    is_seconds,
    is_table,
    is_text,
)

VERSION, MINOR = 1, 0
LARGEST = 16_000_000  # bytes of a file
TYPES = ("float64", "float32", "float16", "bfloat16", "float8", "int8", "int4")
INSTEAD = {"float16": "float32", "bfloat16": "float32", "float8": "float16", "int8": "float32", "int4": "int8"}


@dataclass(frozen=True)
class Device:
    """What a device can do at best.

    ``peaks`` are operations per second by type, a multiply-accumulate being two; ``bandwidth`` is bytes per second,
    ``overhead`` seconds per kernel. ``alignment`` are the multiples of widths that suit it, by type. ``classic`` is the
    "peak" and the "bandwidth" that the original takes for it, where they are others. ``measured`` is what was measured
    on it, as the file has it; without peaks, that is all there is. ``newer``: the file may hold
    more than this version reads.
    """

    name: str
    title: str = ""
    peaks: Mapping[str, float] = field(default_factory=dict)
    bandwidth: float = 0.0
    overhead: float = 0.0
    alignment: Mapping[str, int] = field(default_factory=dict)
    classic: Mapping[str, float] = field(default_factory=dict)
    measured: Table | None = None
    newer: bool = False

    @property
    def modelled(self) -> bool:
        """Whether the file has peaks and a bandwidth."""
        return bool(self.peaks)

    @property
    def classic_peak(self) -> float:
        """Operations per second in the original's formula, whatever the type."""
        return self.classic.get("peak", self.peaks["float32"])

    @property
    def classic_bandwidth(self) -> float:
        """Bytes per second in the original's formula."""
        return self.classic.get("bandwidth", self.bandwidth)

    def kind(self, dtype: ir.DataType) -> str:
        """The type that it computes in where a model has this one: the same, or a wider one that has a peak.

        Raises:
            DeviceError: there is none.
        """
        wanted = kind = _type(dtype)
        while kind not in self.peaks:
            if kind not in INSTEAD:
                message = (
                    f"device {self.name}: the model computes in {wanted}, for which it has no peak; add peak.{wanted}"
                )
                raise DeviceError(message, code="device-peak")
            kind = INSTEAD[kind]
        return kind

    def peak(self, dtype: ir.DataType) -> float:
        """Operations per second on a type. Raises DeviceError as `kind` does."""
        return self.peaks[self.kind(dtype)]

    def multiple(self, dtype: ir.DataType) -> int:
        """The multiple of widths that suits a type, 1 where any does. Raises DeviceError as `kind` does."""
        return self.alignment.get(self.kind(dtype), 1)


def _type(dtype: ir.DataType) -> str:
    """The name of a type in device files; integers of 16 bits and more and truth values go as float32."""
    name = dtype.name.lower()
    if name.startswith("float8"):
        return "float8"
    names = {"double": "float64", "uint8": "int8", "uint4": "int4"}
    name = names.get(name, name)
    return name if name in TYPES else "float32"


def known() -> tuple[str, ...]:
    """The names of the devices that ship with the package."""
    found = (Path(str(each)) for each in files("onnxmorph.devices").iterdir())
    return tuple(sorted(p.stem for p in found if p.suffix == ".toml"))


def load(device: str | os.PathLike[str]) -> Device:
    """A device by name, whatever its case, or from a TOML file.

    Raises:
        DeviceError: there is no such device or file, or the file is not as docs/devices.md says.
    """
    name, path = str(device).lower(), Path(device)
    if name in known():
        return parse((files("onnxmorph.devices") / f"{name}.toml").read_bytes(), f"{name}.toml", name)
    if name.endswith(".toml") or os.path.exists(path) or len(path.parts) > 1:
        return parse(_read(path), str(path), path.stem)
    near = get_close_matches(name, known(), n=3, cutoff=0.3)
    nearest = f"the nearest are {', '.join(near)}; " if near else ""
    message = f"there is no device {str(device)!r}; {nearest}there are {', '.join(known())}, or give a .toml file"
    raise DeviceError(message, code="device-name")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DeviceError(f"{path}: there is no such file", code="device-file")
        if path.stat().st_size > LARGEST:
            message = f"{path}: no device file is larger than {LARGEST:,} bytes; give another one"
            raise DeviceError(message, code="device-file")
        return path.read_bytes()
    except (OSError, ValueError) as e:  # ValueError: a name that no file can have
        raise DeviceError(f"{path}: cannot be read ({e}); check the path", code="device-file") from None


def malformed(message: str, key: bool) -> DeviceError:
    """A key or a value of a device file is not as docs/devices.md says."""
    return DeviceError(message, code="device-key") if key else DeviceError(message, code="device-value")


def parse(content: bytes, source: str, name: str) -> Device:
    """A device from the content of a file. Raises DeviceError, with `source`, the key, and what it should be."""
    try:
        whole = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise DeviceError(f"{source}: not UTF-8 (byte {e.start}); save it as UTF-8", code="device-file") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as e:  # ValueError: an integer of too many digits
        raise DeviceError(f"{source}: not TOML ({e}); see docs/devices.md", code="device-file") from None
    found = Reader(source, whole, "", malformed)
    major, minor = found.take("version", A_VERSION, version_of)
    if major != VERSION:
        raise DeviceError(refusal(source, whole["version"], VERSION), code="device-version")
    found.newer = minor > MINOR
    measured = found.take("measured", "a table", is_table, None)
    bare = measured is not None and "peak" not in whole
    peak = found.inner("peak", *([{}] if bare else []))
    peaks = {} if bare else {"float32": peak.take("float32", RATE, is_rate)}
    peaks |= {t: rate for t in TYPES if (rate := peak.take(t, RATE, is_rate, None)) is not None}
    alignment = found.inner("alignment", {})
    multiples = {t: n for t in TYPES if (n := alignment.take(t, MULTIPLE, is_multiple, None)) is not None}
    original = found.inner("classic", {})
    device = Device(
        name=name,
        title=found.take("title", "a text", is_text, name),
        peaks=peaks,
        bandwidth=found.take("bandwidth", RATE, is_rate, *([0.0] if bare else [])),
        overhead=found.take("overhead", SECONDS, is_seconds, *([0.0] if bare else [])),
        alignment=multiples,
        classic={k: rate for k in ("peak", "bandwidth") if (rate := original.take(k, RATE, is_rate, None)) is not None},
        measured=measured,
        newer=found.newer,
    )
    for each in (found, peak, alignment, original):
        each.finish()
    return device
