"""Everything about Keras once more, on the other backend: which one is read once, when Keras is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SELECTED = "not rebuilt and not named and not unknown and not another"  # what is the same on all backends


def test_all_of_it_on_the_other_backend() -> None:
    other = {"torch": "jax", "jax": "torch"}[os.environ["KERAS_BACKEND"]]
    files = [Path(__file__).with_name(name) for name in ("test_converters_keras.py", "test_adapter_keras.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", SELECTED, *map(str, files)]
    environment = {**os.environ, "KERAS_BACKEND": other, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout
