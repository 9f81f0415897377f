"""Many runs of the algorithm as independent jobs: a process each, on this machine or where Ray puts it.

Every job is a run in a folder of its own. What is done there is not done again; what failed stops no other.
"""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxmorph.algorithm import begin, morph
from onnxmorph.bounds import Bounds
from onnxmorph.errors import OnnxMorphError, RunError
from onnxmorph.files import alone, write_text
from onnxmorph.functions import load_function, users_traceback
from onnxmorph.rounds import Plan
from onnxmorph.visited import Visited, marked, visited, write_tables

FAILED = "failed.json"  # in the folder of a job: code and message
PRINTED = "output.txt"  # and what the train function printed


@dataclass(frozen=True)
class Job:
    """One run: its name, which is its folder's, and what its process is told."""

    name: str
    plan: Plan
    folder: Path
    train: str
    model: str

    def document(self) -> str:
        """For the standard input of the process."""
        said = {"train": self.train, "model": self.model, "out": str(self.folder), "plan": self.plan.document()}
        return json.dumps(said)


@dataclass(frozen=True)
class Failure:
    """Why a job has no result."""

    job: str
    code: str
    message: str


@dataclass(frozen=True)
class Sweep:
    """What the jobs visited, judged together by ``costs``, a row for each as in ``pareto.csv``; and what failed.

    Rows of a job that failed are of the rounds that it had done.
    """

    folder: Path
    costs: Sequence[str]
    jobs: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    failed: tuple[Failure, ...]


def grid(plan: Plan, budgets: Sequence[str], shrinks: Sequence[str | None], seeds: Sequence[int]) -> list[Plan]:
    """Every combination, with what else is in the plan."""
    combinations = itertools.product(budgets, shrinks, seeds)
    return [replace(plan, budget=budget, shrink=shrink, seed=seed) for budget, shrink, seed in combinations]


def sweep(
    train: str,
    model: str | Path,
    plans: Sequence[Plan],
    out: str | Path,
    *,
    jobs: int = 1,
    ray: str | None = None,
    cpus: float = 1,
    gpus: float = 0,
    progress: Callable[[int], None] = lambda ended: None,
) -> Sweep:
    """Run every plan in a process of its own, and list what all of them visited.

    Args:
        train: ``FILE.py:FUNCTION``; every process loads it anew.
        model: the file of the network to begin with.
        plans: what to run; see `grid`.
        out: the folder; every job gets one in it.
        jobs: how many at a time, as local processes; or else
        ray: ``local`` (a cluster of this machine), ``auto`` (the one that runs) or an address. Every machine of it has
            to see the files under the same paths. Ray that is initialised already is used as it is.
        cpus: of one job, on Ray.
        gpus: of one job, on Ray.
        progress: is told how many jobs have ended.

    Raises:
        OnnxMorphError: the model or the function cannot be read, a folder holds another run or is in use, or Ray is not
            there.
    """
    load_function(train)
    file, _, name = train.rpartition(":")
    train, model, out = f"{Path(file).resolve()}:{name}", Path(model).resolve(), Path(out).resolve()
    every = {f"{p.budget}_{p.shrink}_seed={p.seed}": p for p in plans}
    every_job = [Job(name, plan, out / name, train, str(model)) for name, plan in every.items()]
    out.mkdir(parents=True, exist_ok=True)
    failed: list[Failure] = []
    try:
        with alone(out):
            todo = [job for job in every_job if not begin(job.folder, model, job.plan)]
            ended = len(every) - len(todo)
            progress(ended)
            for failure in _locally(todo, jobs) if ray is None else _on_ray(todo, ray, cpus, gpus):
                failed += [] if failure is None else [failure]
                ended += 1
                progress(ended)
            return _judged(out, every, failed)
    except KeyboardInterrupt:
        message = f"interrupted; what the jobs have done is kept in {out}: call again to go on"
        raise RunError(message, code="interrupted") from None


def _judged(out: Path, every: Mapping[str, Plan], failed: Sequence[Failure]) -> Sweep:
    """What the jobs visited, which is written too."""
    found = [(name, each) for name, plan in every.items() for each in visited(out / name, plan.costs)]
    costs = list(dict.fromkeys(cost for plan in every.values() for cost in plan.costs))
    judged = marked([each for _, each in found], costs)
    rows = [_row(name, every[name], each) for (name, _), each in zip(found, judged, strict=True)]
    write_tables(out, "pareto", rows)
    return Sweep(out, costs, tuple(every), tuple(rows), tuple(failed))


def _row(job: str, plan: Plan, of: Visited) -> Mapping[str, Any]:
    row = of.row()
    paths = {key: f"{job}/{row[key]}" for key in ("structure", "model", "network") if row[key] is not None}
    return {"job": job, "budget": plan.budget, "shrink": plan.shrink, "seed": plan.seed, **row, **paths}


# -- processes -----------------------------------------------------------------------------------

Ended = Iterator[Failure | None]  # of each job that ends


def _locally(jobs: Sequence[Job], at_a_time: int) -> Ended:
    running: set[subprocess.Popen[str]] = set()
    with ThreadPoolExecutor(at_a_time) as pool:  # a thread waits; the work is in the process that it starts
        futures = [pool.submit(_process, job, running) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.send_signal(signal.SIGINT)
            raise


def _on_ray(jobs: Sequence[Job], address: str, cpus: float, gpus: float) -> Ended:
    try:
        import ray
    except ImportError:
        message = "Ray is not installed; pip install 'onnxmorph[ray]', or run the jobs as local processes"
        raise RunError(message, code="sweep-ray") from None
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as e:
            message = f"there is no Ray at {address!r} ({str(e).splitlines()[0]}); give local, auto or an address"
            raise RunError(message, code="sweep-ray") from None
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_process)
    waiting = {task.remote(job): job for job in jobs}
    try:
        while waiting:
            (ref, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(ref)
            try:
                failure: Failure | None = ray.get(ref)
            except ray.exceptions.RayError as e:  # a machine that went away
                message = f"Ray lost the job ({str(e).splitlines()[0]}); call again"
                failure = Failure(job.name, code="job-died", message=message)
            yield failure
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)
        if ours:
            ray.shutdown()


def _process(job: Job, running: set[subprocess.Popen[str]] | None = None) -> Failure | None:
    """Run a job, with what it prints in a file."""
    (job.folder / FAILED).unlink(missing_ok=True)
    running = set() if running is None else running
    command = [sys.executable, "-m", "onnxmorph.sweeps"]
    with (job.folder / PRINTED).open("a", encoding="utf-8") as printed:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, stderr=printed, text=True)
        running.add(process)
        process.communicate(job.document())
        running.discard(process)
    if process.returncode == 0:
        return None
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):  # else the job left no reason
        said = json.loads((job.folder / FAILED).read_text(encoding="utf-8"))
        return Failure(job.name, str(said["code"]), str(said["message"]))
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    message = f"the process ended with {how}; see {job.folder / PRINTED}, and call again"
    return Failure(job.name, code="job-died", message=message)


def main() -> int:
    """The process of a job: reads what it is told, runs it, leaves the reason where it fails."""
    said = json.load(sys.stdin)
    plan = Plan(**{**said["plan"], "bounds": Bounds(**said["plan"]["bounds"])})
    folder = Path(said["out"])
    try:
        morph(said["train"], said["model"], plan, folder, progress=lambda text: print(text, flush=True))
    except OnnxMorphError as e:
        print(users_traceback(e), file=sys.stderr)
        write_text(json.dumps({"code": e.code, "message": str(e)}) + "\n", folder / FAILED)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
