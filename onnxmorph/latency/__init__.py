"""Latency as a cost: modelled from what a device can do, measured on it, and as the original modelled it.

analysis = onnxmorph.analyze("model.onnx")
analysis = analysis.with_costs(**latency.costs(analysis, latency.load("t4")))
analysis.costs["latency"].value(analysis.widths)  # seconds
"""

from __future__ import annotations

from onnxmorph.analysis import Analysis
from onnxmorph.latency.classic import classic
from onnxmorph.latency.device import Device, known, load
from onnxmorph.latency.machine import Machine, machine
from onnxmorph.latency.measured import Measured, measured
from onnxmorph.latency.roofline import SIDES, Roofline, roofline
from onnxmorph.polynomial import Resource

__all__ = [
    "SIDES", "Device", "Machine", "Measured", "Roofline", "classic", "costs", "known", "load", "machine", "measured",
    "roofline",
]  # fmt: skip


def costs(analysis: Analysis, device: Device) -> dict[str, Resource]:
    """The costs that exist only with a device: ``latency`` and, where it has a peak, ``classic_latency``; in seconds.

    What was measured goes before what is modelled.

    Raises:
        DeviceError: an op computes in a type for which the device has no peak.
    """
    found: dict[str, Resource] = {}
    if device.measured is not None:
        found = {"latency": measured(analysis, machine(device.measured, device.name, newer=device.newer))}
    elif device.modelled:
        found = {"latency": roofline(analysis, device), "classic_latency": classic(analysis, device)}
    return found
