"""What has to be set before JAX and Keras are imported, wherever a test does, and before processes are started."""

import os
import signal

# Most of what tests of JAX take is compiling networks that run once.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("KERAS_BACKEND", "jax")  # the other one: tests/test_keras_backends.py

# A run in the background (nohup, `&`) ignores interrupts, and all that it starts would; tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
