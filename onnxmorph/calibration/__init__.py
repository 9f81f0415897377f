"""Latency measured on the user's own machine, in ONNX Runtime: runs at many widths, and what they teach.

Sums of micro-benchmarks miss the time of a whole network by up to half, for kernels share caches and data layouts.
Therefore the network itself runs, at random widths, and the terms of its kernels are fitted to these runs.
"""

from onnxmorph.calibration.calibrate import MOST, Calibration, calibrate
from onnxmorph.calibration.compare import Comparison, KernelTime, compare, place_of
from onnxmorph.calibration.timing import Place

__all__ = ["MOST", "Calibration", "Comparison", "KernelTime", "Place", "calibrate", "compare", "place_of"]
