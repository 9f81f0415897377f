"""Run the command line, then write the peak of its memory to a file: ``python -m benchmarks.peak FILE ARGS...``.

The peak is VmHWM of ``/proc/self/status``: all pages of the process that were in memory at one time, those that it maps
from files included, which the system could take back. A child's ru_maxrss would start from what its parent had.
"""

from __future__ import annotations

import sys
from pathlib import Path

from onnxmorph.cli import run


def peak() -> int:
    """In bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


if __name__ == "__main__":
    code = run(sys.argv[2:])
    Path(sys.argv[1]).write_text(str(peak()), encoding="ascii")
    sys.exit(code)
