"""What rich draws of names and numbers: tables, paragraphs, bars."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onnxmorph.report.documents import Document
from onnxmorph.words import amount, cost_name, percent, plain, plural, quantity, shorten

__all__ = [
    "Document", "add_row", "amount", "cost_name", "paragraph", "percent", "plain", "plural", "quantity", "share_bar",
    "shorten", "table_of",
]  # fmt: skip


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
