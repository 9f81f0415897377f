"""Text and tables: names made safe, numbers made short, and what rich draws of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

BYTES = ("param_bytes", "activation_bytes", "bytes_moved", "peak_memory")
SECONDS = ("latency", "classic_latency")
UNITS = {0: "s", -1: "ms", -2: "µs", -3: "ns"}


def plain(text: object) -> str:
    r"""One line that is safe on a terminal: control and formatting characters as escapes.

    >>> print(plain("a" + chr(27) + "[31m b"))
    a\x1b[31m b
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shorten(text: object, width: int) -> str:
    """The end of a long name, which tells more than its beginning.

    >>> shorten("backbone.layer1.0.conv1.weight", 17)
    '…1.0.conv1.weight'
    """
    line = plain(text)
    return line if len(line) <= width else f"…{line[-width + 1 :]}"


def amount(number: float) -> str:
    """Three significant digits and a unit.

    >>> amount(1814073344), amount(999.6e6), amount(512), amount(0)
    ('1.81 G', '1.00 G', '512', '0')
    """
    if abs(number) < 1000:
        return f"{number:.4g}"
    exponent = min(int(np.log10(float(f"{abs(number):.2e}"))) // 3, 6)
    return f"{number / 1000.0**exponent:#.3g}".rstrip(".") + f" {' kMGTPE'[exponent]}"


def quantity(name: str, number: float) -> str:
    """A cost in its unit: bytes, seconds, or a plain count; `name` is that of the cost.

    >>> quantity("peak_memory", 6_422_528), quantity("latency", 0.00042), quantity("macs", 512)
    ('6.42 MB', '420 µs', '512')
    """
    if name in SECONDS:
        number = float(f"{number:.3g}")
        exponent = min(max(int(np.floor(np.log10(abs(number)) / 3)), -3), 0) if number else 0
        return f"{number / 1000.0**exponent:#.3g}".rstrip(".") + f" {UNITS[exponent]}"
    text = amount(number)
    return text if name not in BYTES else f"{text}B" if " " in text else f"{text} B"


def cost_name(name: str) -> str:
    """A cost as people write it.

    >>> cost_name("classic_flops"), cost_name("peak_memory")
    ('classic FLOPs', 'peak memory')
    """
    return name.replace("_", " ").replace("flops", "FLOPs").replace("macs", "MACs")


def percent(part: float, whole: float) -> str:
    """A share, or a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def plural(number: int, word: str) -> str:
    """A count and its word."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def table_of(title: str, *columns: str, right: int = 0, wrap: bool = False) -> Table:
    """A table whose last columns but one are numbers: `right` of them. ``wrap`` lets the last column wrap."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD,
        show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    last = len(columns) - 1
    for i, heading in enumerate(columns):
        justify: Any = "right" if last - right <= i < last else "left"
        table.add_column(heading, justify=justify, no_wrap=not (wrap and i == last), overflow="fold")
    return table


def add_row(table: Table, *cells: RenderableType, style: str = "") -> None:
    """Cells as they are, without markup."""
    table.add_row(*(Text(c) if isinstance(c, str) else c for c in cells), style=style)


def paragraph(text: str) -> Padding:
    """A text set off by two spaces."""
    return Padding(Text(text), (0, 2))


def share_bar(share: float) -> ProgressBar:
    """A share between 0 and 1."""
    return ProgressBar(
        total=1.0, completed=min(max(share, 0.0), 1.0), width=10, complete_style="cyan", finished_style="cyan"
    )
