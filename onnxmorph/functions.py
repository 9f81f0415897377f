"""The user's own function in a file, ``train.py:train``, and what it raises."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxmorph.bounds import near
from onnxmorph.errors import OnnxMorphError, RunError

OURS = str(Path(__file__).parent) + os.sep


def load_function(text: str) -> Callable[..., Any]:
    """The function that ``FILE.py:NAME`` names. The file runs as a module; modules beside it can be imported.

    Raises:
        RunError: there is no such file or function, or the file raised, which is the cause then.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name.isidentifier():
        raise RunError(f"{text!r} names no function; write FILE.py:FUNCTION, e.g. train.py:train", code="train-file")
    if not path.is_file():
        raise RunError(f"{path}: there is no such file; give the file with your train function", code="train-file")
    module = _module(path.resolve())
    function = vars(module).get(name)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise RunError(f"{path} has no function {name!r}; {near(name, names)}", code="train-file")
    return function  # type: ignore[no-any-return]  # what it takes and gives is checked where it is called


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules.setdefault(path.stem, module)  # data loaders and dataclasses look their module up
    called(spec.loader.exec_module, module, when=f"while {path.name} was loaded")
    return module


def called(function: Callable[..., Any], argument: Any, *, when: str) -> Any:
    """Call what the user wrote. Raises RunError with what it raised as the cause, and our own errors as they are."""
    try:
        return function(argument)
    except OnnxMorphError:
        raise
    except (Exception, SystemExit) as e:
        said = f"{type(e).__name__}: {e}".splitlines()[0]
        raise RunError(f"your code failed {when} ({said}); mend it and call again", code="train-function") from e


def users_traceback(error: BaseException) -> str:
    """The traceback of what the user's code raised, from where that begins; "" for errors that are not of it."""
    cause = error.__cause__
    if cause is None:
        return ""
    frames = cause.__traceback__
    while frames is not None and _not_the_users(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(cause.with_traceback(frames)))


def _not_the_users(file: str) -> bool:
    return file.startswith((OURS, "<frozen importlib"))
