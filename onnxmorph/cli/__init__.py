"""The command line. Results go to stdout, progress and errors to stderr; nothing heavy is imported for ``--help``.

Exit codes: 0 fine, 1 cannot do it, 2 wrong usage, 130 interrupted, 141 the reader of stdout has gone.
"""

from onnxmorph.cli import commands, comparing, measuring, reporting, training
from onnxmorph.cli.application import app
from onnxmorph.cli.options import By, Data, Init
from onnxmorph.cli.program import main, run

__all__ = ["By", "Data", "Init", "app", "commands", "comparing", "main", "measuring", "reporting", "run", "training"]
