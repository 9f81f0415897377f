"""Processes of cases: each does one case at a time, and where one ends or waits, that case is to blame."""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from threading import Lock, Thread

from benchmarks.fuzz.cases import Corpus, Result, run
from benchmarks.fuzz.sandbox import sandbox

STILL = 60  # seconds without an answer after which a process is ended: it waits for something
MANY = 2000  # cases of one process; the next begins with a clean memory
# Each thread reserves address space.
ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")


def serve() -> None:
    """The process: a number a line in, a result a line out. It lives in a sandbox from its second line on."""
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what it warns of ends as an error, or is no matter
    corpus = Corpus()
    with sandbox() as box:
        for number in range(40):  # what is imported late is no matter of a case
            run(number, corpus, box)
        box.limit()
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(run(int(line), corpus, box))), flush=True)


@dataclass
class Worker:
    """A process, begun when it is first asked."""

    process: subprocess.Popen[str] | None = None
    done: int = 0

    def ask(self, number: int) -> Result:
        """Have a case done."""
        process = self.process or self.begin()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            answers, _, _ = select.select([process.stdout], [], [], STILL)
            line = process.stdout.readline() if answers else None
        except BrokenPipeError:
            line = ""
        self.done += 1
        if line:
            if self.done % MANY == 0:
                self.end()
            return Result(**json.loads(line))
        self.end()
        return Result(number, "", "", "hang" if line is None else "died", f"exit {process.returncode}")

    def begin(self) -> subprocess.Popen[str]:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-m", "benchmarks.fuzz", "--serve"]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ALONE}
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a process of cases does not start")
        self.process = process
        return process

    def end(self) -> None:
        """Stop it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@dataclass
class Pool:
    """Several workers over one list of cases; ``took`` is called with every result, one at a time."""

    numbers: Iterator[int]
    took: Callable[[Result], None]
    lock: Lock = field(default_factory=Lock)

    def run(self, jobs: int) -> None:
        """Until there are none left."""
        threads = [Thread(target=self.feed, daemon=True) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def feed(self) -> None:
        """Keep one worker busy."""
        worker = Worker()
        try:
            while True:
                with self.lock:
                    number = next(self.numbers, None)
                if number is None:
                    return
                result = worker.ask(number)
                with self.lock:
                    self.took(result)
        finally:
            worker.end()
