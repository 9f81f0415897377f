"""What has to be set before JAX and Keras are imported, wherever a test does."""

import os

# Most of what tests of JAX take is compiling networks that run once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("KERAS_BACKEND", "jax")  # the other one: tests/test_keras_backends.py
