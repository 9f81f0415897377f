"""Run the cases, in processes of their own; exit code 1 if one of them did what no file may lead to.

python -m benchmarks.fuzz                  50,000 cases; a run that was stopped goes on
python -m benchmarks.fuzz --again          those that failed once more
python -m benchmarks.fuzz --case 1234      one case, here, without limits; its files stay in out/fuzz/1234
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from pathlib import Path

from rich.progress import Progress

from benchmarks.fuzz.cases import Corpus, Result, prepare
from benchmarks.fuzz.results import BAD, append, read, write
from benchmarks.fuzz.sandbox import Sandbox
from benchmarks.fuzz.workers import Pool, serve

CASES = 50_000
OUT = Path("out") / "fuzz"


def alone(number: int) -> None:
    """One case, to look at."""
    root = OUT.resolve() / str(number)
    shutil.rmtree(root, ignore_errors=True)
    box = Sandbox(root)
    box.furnish()
    surface, (mutation, content, work) = prepare(number, Corpus(), box)
    print(f"case {number}: {surface}, {mutation}, {len(content)} bytes in {box.given}")
    work()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=OUT / "results.jsonl")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--case", type=int)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return 0
    if asked.case is not None:
        alone(asked.case)
        return 0
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    done = read(asked.results)
    if asked.again:
        done = {n: r for n, r in done.items() if r.outcome not in BAD}
    todo = [n for n in range(asked.cases) if n not in done]
    with Progress(disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("cases", total=len(todo))

        def took(result: Result) -> None:
            append(asked.results, result)
            done[result.number] = result
            progress.advance(bar)

        Pool(iter(todo), took).run(asked.jobs)
    found = [done[n] for n in sorted(done) if n < asked.cases]
    bad = [r for r in found if r.outcome in BAD]
    for each in bad[:20]:
        print(f"case {each.number} ({each.surface}, {each.mutation}): {each.outcome}: {each.detail}")
    print(f"{len(found):,} cases, {len(bad):,} failures; {Counter(r.outcome for r in found).most_common(8)}")
    if len(found) == CASES:
        print(f"written: {write(found).name}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
