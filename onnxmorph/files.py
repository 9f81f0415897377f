"""Files that are written: each whole or not at all, and one process at a time where several would clash.

A file is written under another name, in a folder of its own beside its place, and renamed: who is killed on the way
leaves what was there, and such a folder, which whoever writes there next clears away.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from onnxmorph.errors import OutputError

SCRATCH = ".onnxmorph-"  # how the names of such folders begin
BORN = 60.0  # seconds in which a folder may still be without the lock of its process
LOCK = ".lock"
_LOCKS: list[FileLock] = []  # that were ever held: an interrupt that falls into the end of one would be lost


def _lock(path: Path, timeout: float = -1) -> FileLock:
    _LOCKS.append(FileLock(path, timeout=timeout))
    return _LOCKS[-1]


def check_output(path: str | os.PathLike[str]) -> Path:
    """Where a result will stand, links followed. Raises OutputError if nothing can be written there."""
    target = Path(path).resolve()
    reason = ""
    if target.exists() and not target.is_file():  # a folder, or a device, which a rename would replace
        reason = "it is no regular file"
    elif not target.parent.is_dir():
        reason = f"there is no folder {target.parent}"
    elif not os.access(target.parent, os.W_OK):
        reason = f"the folder {target.parent} is read-only"
    if reason:
        raise OutputError(f"{path}: cannot be written ({reason}); choose another place", code="output")
    return target


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write a file under, which then stands at ``path``: whole, or not at all if writing fails or is killed.

    >>> with whole("checkpoint.pt") as place:  # doctest: +SKIP
    ...     torch.save(state, place)

    Raises:
        OutputError: the folder is missing, or the file cannot be written.
    """
    target = check_output(path)
    try:
        with scratch(target.parent) as folder:
            yield folder / target.name
            os.replace(folder / target.name, target)
    except OSError as e:
        raise OutputError(f"{target}: cannot be written ({e.strerror}); choose another place", code="output") from None


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file whole or not at all. Raises OutputError as `whole` does."""
    with whole(path) as place:
        place.write_text(text, encoding="utf-8")


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` for files that are not whole yet; those that killed processes left there go."""
    for left in parent.glob(f"{SCRATCH}*"):
        with suppress(OSError, Timeout):
            if time.time() - left.stat().st_mtime < BORN:
                continue
            if not (left / LOCK).exists():
                left.rmdir()  # empty, or not ours
            with _lock(left / LOCK, timeout=0):  # free: the process that made it is no more
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix=SCRATCH) as name, _lock(Path(name) / LOCK):
        yield Path(name)


def weights_beside(model: Path) -> list[Path]:
    """The files that hold the weights of a model that was written, or of one that stood there before."""
    named = re.compile(rf"{re.escape(model.name)}(\.[0-9]+)?\.data")
    return sorted(path for path in model.parent.iterdir() if named.fullmatch(path.name))


def free_name(model: Path) -> str:
    """A name for the weights of a model that is not taken: ``m.onnx.data``, or else ``m.onnx.2.data`` and so on."""
    taken = {path.name for path in weights_beside(model)}
    names = (f"{model.name}{'' if n == 1 else f'.{n}'}.data" for n in count(1))
    return next(name for name in names if name not in taken)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes away from what is done at ``path``, a folder that there is or a file to be.

    The lock is the system's, which frees it when its process ends, however that ends.

    Raises:
        OutputError: another process is at it, which the message names, or nothing can be written there.
    """
    folder, name = (path, "") if path.is_dir() else (path.parent, f".{path.name}")
    lock, holder = _lock(folder / f"{name}.lock", timeout=0), folder / f"{name}.holder"
    try:
        lock.acquire()
    except Timeout:
        message = f"{path} is in use by {_said(holder)}; wait for it, end it, or choose another place"
        raise OutputError(message, code="locked") from None
    except OSError as e:
        raise OutputError(f"{path}: cannot be written ({e.strerror}); choose another place", code="output") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}\n", holder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _said(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8").strip()
    except OSError:  # it has only just begun, or is about to end
        return "another process"
