"""Timing a model in ONNX Runtime: in total, and kernel by kernel through its profile."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.axes import Floats
from onnxmorph.errors import CalibrationError
from onnxmorph.surgery.run import NEWEST_IR, runnable

WARM_UP = 2
FEWEST, MOST = 7, 60  # repetitions
SECONDS = 0.25  # that repetitions should fill


@dataclass(frozen=True)
class Place:
    """Where models run: an execution provider of ONNX Runtime, and how many threads (0: as it chooses)."""

    provider: str
    threads: int

    def check(self) -> None:
        """Raise CalibrationError where there is no such provider here."""
        import onnxruntime

        here = onnxruntime.get_available_providers()
        if self.provider not in here:
            message = f"there is no execution provider {self.provider!r} here; there are {', '.join(here)}"
            raise CalibrationError(message, code="calibrate-provider")


@dataclass(frozen=True)
class Profile:
    """The nodes that ran, in order, as the runtime had made them, their median seconds, and where they ran."""

    nodes: tuple[onnx.NodeProto, ...]
    seconds: Floats
    providers: tuple[str, ...]


@dataclass(frozen=True)
class Timed:
    """Median seconds of a run, the spread of runs (interquartile range over median), and where the time went."""

    seconds: float
    spread: float
    profile: Profile | None


def runtime() -> str:
    """The runtime and its version."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def time_model(model: ir.Model, feeds: Mapping[str, NDArray[Any]], place: Place) -> Timed:
    """Run a model until its time is known: warm-up, repetitions, medians.

    Raises:
        CalibrationError: the runtime cannot run the model there.
    """
    model.ir_version = min(model.ir_version or 8, NEWEST_IR)
    with runnable(model) as content:
        taken = _repeat(_session(content, place), feeds)
        low, middle, high = np.quantile(taken, (0.25, 0.5, 0.75))
        # The optimised graph, which the profile is read with, is one file: of a model of two there is none.
        profile = None if isinstance(content, str) else _profile(content, feeds, place, len(taken))
    if profile is not None:  # taking the time of a node takes time, alike for all
        extra = max(0.0, profile.seconds.sum() - middle) / len(profile.nodes)
        profile = replace(profile, seconds=np.maximum(profile.seconds - extra, 0.0))
    return Timed(float(middle), float((high - low) / middle), profile)


def _session(content: bytes | str, place: Place, **settings: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = place.threads
    for key, value in settings.items():
        setattr(options, key, value)
    try:
        return onnxruntime.InferenceSession(content, options, providers=[place.provider])
    except Exception as e:  # its errors share no base class
        raise _cannot_run(e) from None


def _repeat(session: Any, feeds: Mapping[str, NDArray[Any]], times: int | None = None) -> Floats:
    """Seconds of every repetition after the warm-up; as many as fill the time where no number is given."""

    def once() -> float:
        start = time.perf_counter()
        session.run(None, feeds)
        return time.perf_counter() - start

    try:
        first = [once() for _ in range(WARM_UP)][-1]
        times = int(np.clip(SECONDS / max(first, 1e-9), FEWEST, MOST)) if times is None else times
        return np.array([once() for _ in range(times)])
    except Exception as e:
        raise _cannot_run(e) from None


def _profile(content: bytes, feeds: Mapping[str, NDArray[Any]], place: Place, times: int) -> Profile | None:
    """What the runtime says of every node; None where it does not say so of each node once per run."""
    times = max(FEWEST, times // 2)
    with tempfile.TemporaryDirectory(prefix="onnxmorph-") as folder:
        optimised = Path(folder) / "optimised.onnx"
        session = _session(
            content,
            place,
            enable_profiling=True,
            profile_file_prefix=str(Path(folder) / "profile"),
            optimized_model_filepath=str(optimised),
        )
        _repeat(session, feeds, times)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        nodes = tuple(onnx.load(optimised, load_external_data=False).graph.node)
    ran = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    types = [e["args"]["op_name"] for e in ran]
    if types != [node.op_type for node in nodes] * (WARM_UP + times):  # bodies, or a provider that runs nodes as one
        return None
    taken = np.array([e["dur"] for e in ran], float).reshape(-1, len(nodes))[WARM_UP:]
    providers = tuple(e["args"].get("provider", place.provider) for e in ran[: len(nodes)])
    return Profile(nodes, np.median(taken, 0) * 1e-6, providers)


def _cannot_run(e: Exception) -> CalibrationError:
    reason = " ".join(str(e).split())[:200]
    message = f"ONNX Runtime cannot run the model there ({reason}); check the model, the provider and --shape"
    return CalibrationError(message, code="calibrate-runtime")
