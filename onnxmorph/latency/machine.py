"""What was measured on a machine: the table ``[measured]`` of a device file, read and written (docs/devices.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxmorph.errors import DeviceError
from onnxmorph.latency.device import malformed
from onnxmorph.reading import SECONDS, Reader, Table, is_list, is_number, is_seconds, is_text, is_whole

Coefficients = Mapping[str, Mapping[str, float]]  # kind to feature to seconds

NUMBERS = "numbers that are not negative"


@dataclass(frozen=True)
class Run:
    """A network of some widths that ran: median seconds, their spread, and seconds of every kernel if they are known.

    ``spread`` is the interquartile range of repetitions over their median.
    """

    widths: tuple[int, ...]
    seconds: float
    spread: float
    kernels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Network:
    """What was measured of one network, and the coefficients that fit it; none while its measurement is not over.

    ``median`` and ``largest`` are the relative errors on runs that were held out of the fit, ``spread`` the median one.
    ``overhead`` is seconds of a run beside its kernels.
    """

    name: str
    runs: tuple[Run, ...]
    coefficients: Coefficients
    overhead: float = 0.0
    median: float = 0.0
    largest: float = 0.0
    spread: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What ran where, and what was measured there, by network."""

    runtime: str
    provider: str
    threads: int
    processor: str
    networks: Mapping[str, Network]

    def coefficients(self, key: str) -> tuple[float, Coefficients]:
        """Seconds per run and coefficients for a network: its own, else means over those that have the kind."""
        own = self.networks.get(key)
        return (own.overhead, own.coefficients) if own is not None and own.coefficients else self.means()

    def means(self) -> tuple[float, Coefficients]:
        """Seconds per run, and the coefficients of every kind, over the networks that have it."""
        every = [n for n in self.networks.values() if n.coefficients]
        found: dict[str, dict[str, float]] = {}
        for kind in sorted({kind for n in every for kind in n.coefficients}):
            having = [n.coefficients[kind] for n in every if kind in n.coefficients]
            features = sorted({f for each in having for f in each})
            found[kind] = {f: sum(each.get(f, 0.0) for each in having) / len(having) for f in features}
        return float(np.mean([n.overhead for n in every] or [0.0])), found

    def with_network(self, key: str, network: Network) -> Machine:
        """The same machine, and this network measured on it."""
        return replace(self, networks={**self.networks, key: network})

    def document(self) -> dict[str, Any]:
        """The table ``[measured]``."""
        return {
            "runtime": self.runtime,
            "provider": self.provider,
            "threads": self.threads,
            "processor": self.processor,
            "networks": {key: _network_document(network) for key, network in self.networks.items()},
        }


def machine(table: Table, source: str, *, newer: bool = False) -> Machine:
    """Read the table ``[measured]``. Raises DeviceError with `source`, the key, and what it should be.

    Of a file of a newer minor version, unknown keys are left out.
    """
    found = Reader(source, table, "measured.", malformed, newer=newer)
    networks = found.inner("networks")
    read = {key: _network(networks.inner(key)) for key in networks.table}
    result = Machine(
        runtime=found.take("runtime", "a text", is_text),
        provider=found.take("provider", "a text", is_text),
        threads=found.take("threads", "a whole number", is_whole),
        processor=found.take("processor", "a text", is_text),
        networks=read,
    )
    found.finish()
    if not any(n.coefficients for n in read.values()) and not any(n.runs for n in read.values()):
        raise DeviceError(f"{source}: measured: nothing is; run `onnxmorph calibrate`", code="device-measured")
    return result


def _network_document(of: Network) -> dict[str, Any]:
    return {
        "name": of.name,
        "overhead": of.overhead,
        "median": of.median,
        "largest": of.largest,
        "spread": of.spread,
        "kinds": {kind: dict(features) for kind, features in of.coefficients.items()},
        "runs": [
            {"widths": list(r.widths), "seconds": r.seconds, "spread": r.spread, "kernels": list(r.kernels)}
            for r in of.runs
        ],
    }


def _network(table: Reader) -> Network:
    kinds = table.inner("kinds")
    coefficients = {}
    for kind in kinds.table:
        features = kinds.inner(kind)
        coefficients[kind] = {name: features.take(name, "seconds, not negative", is_seconds) for name in features.table}
    rates = {name: table.take(name, SECONDS, is_seconds) for name in ("overhead", "median", "largest", "spread")}
    runs = tuple(_run(table.at(f"runs[{i}]", run)) for i, run in enumerate(table.take("runs", "a list", is_list)))
    result = Network(table.take("name", "a text", is_text), runs, coefficients, **rates)
    table.finish()
    return result


def _run(table: Reader) -> Run:
    result = Run(
        tuple(int(n) for n in table.take("widths", NUMBERS, _numbers)),
        table.take("seconds", SECONDS, is_seconds),
        table.take("spread", SECONDS, is_number),
        table.take("kernels", NUMBERS, _numbers),
    )
    table.finish()
    return result


def _numbers(value: Any) -> tuple[float, ...] | None:
    read = [is_number(each) for each in value] if isinstance(value, list) else [None]
    return None if any(each is None for each in read) else tuple(each for each in read if each is not None)
