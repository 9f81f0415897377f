"""What a case may do: its time, its memory, and where it writes. Python itself reports the rest (audit events)."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

MEMORY = 2 << 30  # bytes of address space
SECONDS = 10  # of computing, per case
SECRET = b"secret! " * 200
CODE = (
    "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect",
    "ctypes.dlopen",
)  # fmt: skip
MOVES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "shutil.move", "shutil.rmtree",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hang(BaseException):
    """Raised in a case that computes for too long; no handler of exceptions catches it."""


class Breach(BaseException):
    """Raised where a case writes, reads or runs what it must not."""


class Sandbox:
    """A folder with ``in``, where a case finds its files, ``out``, where it may write, and a secret beside them."""

    def __init__(self, root: Path) -> None:
        self.root, self.given, self.out = root, root / "in", root / "out"
        self.on, self.breach = False, ""

    def furnish(self) -> None:
        """Weights beside the model, and every way out of its folder."""
        (self.given / "sub").mkdir(parents=True)
        self.out.mkdir()
        secret = self.root / "secret.bin"
        secret.write_bytes(SECRET)
        for name in ("w.bin", "sub/w.bin"):
            (self.given / name).write_bytes(bytes(range(64)) * 400)
        (self.given / "link.bin").symlink_to(secret)
        (self.given / "hard.bin").hardlink_to(secret)
        (self.given / "outside").symlink_to(self.root)
        (self.given / "loop.bin").symlink_to("loop.bin")
        (self.given / "inside.bin").symlink_to("w.bin")
        os.mkfifo(self.given / "pipe.bin")
        self.before = self.listing()

    def listing(self) -> dict[str, tuple[int, int]]:
        """All files outside ``out``, their sizes and times; the files of the case itself excepted."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if self.out not in (path, *path.parents) and not path.name.startswith("case."):
                stat = path.lstat()
                found[str(path)] = (stat.st_size, 0 if path.is_dir() else stat.st_mtime_ns)
        return found

    def limit(self) -> None:
        """Limits on this process, for good: of memory, of time, and of what audit events it may give."""
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, _too_long)
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note, and stop, what is not allowed. Handlers cannot be removed, so that they look whether they are on."""
        if not self.on:
            return
        if event in CODE or (event == "open" and not self.may_open(*arguments)):
            self.stop(f"{event} {arguments[:2]}")
        within = any(isinstance(a, int) and a >= 0 for a in arguments[1:])  # a name in a folder that was opened before
        if (
            event in MOVES
            and not within
            and not all(self.inside(a, self.out) for a in arguments if isinstance(a, str | os.PathLike))
        ):
            self.stop(f"{event} {arguments[:2]}")

    def stop(self, what: str) -> None:
        """End the case."""
        self.breach = what[:300]
        raise Breach(self.breach)

    def may_open(self, path: Any, mode: Any, flags: Any) -> bool:
        """Whether a file may be opened so: written under ``out``, read where no secret is."""
        if isinstance(path, int):
            return True
        if isinstance(flags, int) and flags & WRITES:
            return self.inside(path, self.out) or str(path) == os.devnull
        private = self.inside(path, self.root) and not self.inside(path, self.given) and not self.inside(path, self.out)
        return not (private or str(path).startswith(("/etc", "/dev", "/proc")))

    def inside(self, path: Any, folder: Path) -> bool:
        """Whether a path is in a folder, links followed."""
        return Path(os.path.realpath(os.fsdecode(path))).is_relative_to(folder)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Limits are on for what is done within."""
        self.breach, self.on = "", True
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.on = False

    def traces(self, content: bytes) -> str:
        """What a case left where it must not, or took from where it must not; then ``out`` is emptied."""
        problem = self.breach
        if self.listing() != self.before:
            problem = "files outside the output's folder changed"
        for path in sorted(self.out.iterdir()):
            if not path.name.startswith(("small.", "s.json")):
                problem = f"{path.name} was left beside the output"
            elif path.is_file() and SECRET[:24] in path.read_bytes() and SECRET[:24] not in content:
                problem = f"{path.name} holds what lies outside the model's folder"
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return problem


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Hang


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="onnxmorph-fuzz-") as folder:
        result = Sandbox(Path(folder).resolve())
        result.furnish()
        yield result
