"""Everything about Keras once more, on the other backends: which one is read once, when Keras is imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SAME = "not rebuilt and not named and not unknown and not another"  # what is the same on all backends
# Of TensorFlow's export norms are arithmetic, recurrent layers loops, and an output's batch size may have no name.
ON_TENSORFLOW = "not norms and not recurrent and not (free and attention)"


def run(backend: str, selected: str, *names: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", "-k", selected]
    files = [str(Path(__file__).with_name(name)) for name in names]
    environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout


def test_all_of_it_on_the_other_backend() -> None:
    other = {"torch": "jax", "jax": "torch"}[os.environ["KERAS_BACKEND"]]
    run(other, SAME, "test_converters_keras.py", "test_adapter_keras.py")


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="the extra tensorflow is not installed")
def test_all_of_it_and_more_on_tensorflow() -> None:
    run("tensorflow", ON_TENSORFLOW, "test_converters_keras.py", "test_adapter_keras.py")
    run("tensorflow", "", "test_converters_tensorflow.py")
