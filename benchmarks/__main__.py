"""Run the benchmarks that are named, or all; exit code 1 if an aim is missed."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from benchmarks import adapter, analysis, big, counters, growth, imports, latency, report, zoo
from benchmarks.timing import Row, write

PARTS = (adapter, analysis, big, counters, growth, imports, latency, report, zoo)
ALL = {part.__name__.rpartition(".")[2]: part.run for part in PARTS}


def amount(number: float, row: Row) -> str:
    if row.exact:
        return f"{number:,}"
    return f"{number * 1e3:.1f} ms" if row.unit == "s" else f"{number:,.1f} {row.unit}"


def show(name: str, rows: list[Row]) -> None:
    table = Table(title=name, title_justify="left")
    for column in ("what", "ours", "against", "theirs", "ratio", "aim", ""):
        table.add_column(column, justify="right" if column in ("ours", "theirs", "ratio", "aim") else "left")
    for row in rows:
        aim, verdict = "equal" if row.exact else f"≤ {row.bound:g}", "holds" if row.holds else "[bold red]missed[/]"
        ours, theirs = amount(row.ours, row), amount(row.theirs, row)
        table.add_row(row.what, ours, row.against, theirs, f"{row.ratio:.3f}", aim, verdict)
    Console().print(table)


def main(names: list[str]) -> int:
    unknown = set(names) - ALL.keys()
    if unknown:
        print(f"there is no benchmark {sorted(unknown)[0]!r}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    good = True
    for name in names or ALL:
        rows = ALL[name]()
        show(name, rows)
        print(f"written: {write(name, rows).name}")
        good = good and all(row.holds for row in rows)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
