"""Run one command: every failure ends as one sentence, a code and an exit code."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import typer

from onnxmorph.cli.application import app
from onnxmorph.cli.options import UsageError
from onnxmorph.cli.output import ReaderGone
from onnxmorph.errors import OnnxMorphError, RunError


@dataclass(frozen=True)
class Failure:
    """What a failed command leaves: an exit code, a stable code and one sentence; and where the user's code failed."""

    exit: int
    code: str
    message: str
    traceback: str = ""  # of the user's own code


def _failure(e: BaseException) -> Failure:
    if isinstance(e, OnnxMorphError):
        return Failure(130 if e.code == "interrupted" else 1, e.code, str(e), _traceback(e))
    if isinstance(e, UsageError):
        return Failure(2, code="usage", message=e.format_message())
    if isinstance(e, (KeyboardInterrupt, typer.Abort)):
        return Failure(130, code="interrupted", message="interrupted; nothing was written")
    if isinstance(e, MemoryError):
        return Failure(1, code="memory", message="there is not enough memory for this model; use a machine with more")
    if isinstance(e, RecursionError):
        return Failure(1, code="depth", message="the model is nested too deeply to be read; export it flat")
    if isinstance(e, OSError):
        message = f"{e.filename or 'the system'}: {e.strerror or e}; free it or choose another place"
        return Failure(1, code="system", message=message)
    reason = f"{type(e).__name__}: {e}"
    advice = "please report it with the model; ONNXMORPH_DEBUG=1 shows the traceback"
    return Failure(1, code="bug", message=f"this is a bug of onnxmorph ({reason[:300]}): {advice}")


def _traceback(e: OnnxMorphError) -> str:
    if not isinstance(e, RunError):
        return ""
    from onnxmorph.functions import users_traceback

    return users_traceback(e)


def _complain(failure: Failure, as_json: bool) -> None:
    from onnxmorph.report import plain, versioned

    if as_json:
        more = {"traceback": failure.traceback} if failure.traceback else {}
        print(json.dumps(versioned("error", {"error": {"code": failure.code, "message": failure.message, **more}})))
    else:
        print(failure.traceback, end="", file=sys.stderr)
        print(f"error: {plain(failure.message)}  [{failure.code}]", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """Run one command and give the exit code."""
    as_json = "--json" in argv
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what it warns of ends as an error here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = app(list(argv) or ["--help"], prog_name="onnxmorph", standalone_mode=False) or 0
        if code == 130:  # what typer makes of an interrupt
            raise KeyboardInterrupt
        code = code if argv else 2
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        _drop_stdout()
        return 141
    except (Exception, KeyboardInterrupt) as e:
        if os.environ.get("ONNXMORPH_DEBUG"):
            import traceback

            traceback.print_exc()
        failure = _failure(e)
        _complain(failure, as_json)
        code = failure.exit
    return _flushed(int(code))


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or nobody reads: there is nowhere left to say so
        _drop_stdout()
    return code


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The entry point."""
    if not sys.stdout.isatty():  # typer would colour the help wherever it finds itself in a workflow of GitHub
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal without UTF-8
    sys.exit(run(sys.argv[1:]))
