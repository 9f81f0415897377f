"""Tables of records as text, for a prompt, and as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from onnxmorph.words import cost_name, plain, plural, quantity, shorten

Record = dict[str, Any]

ROWS = 12  # of a table
WIDEST = 40  # characters of a name in text

# Colours and fonts are those of the page, so that it reads on light and on dark ones.
STYLE = (
    ".onnxmorph table{border-collapse:collapse;margin:.5em 0;color:inherit;background:none}"
    ".onnxmorph caption{text-align:left;font-weight:bold;caption-side:top;color:inherit}"
    ".onnxmorph th,.onnxmorph td{padding:.1em .8em .1em 0;text-align:right;background:none;color:inherit;border:0}"
    ".onnxmorph th{border-bottom:1px solid currentColor;font-weight:normal;opacity:.7}"
    ".onnxmorph th:first-child,.onnxmorph td:first-child{text-align:left}"
)


@dataclass(frozen=True)
class Sheet:
    """A table of texts: its title, headings, rows, and what it leaves out."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""


class Shown:
    """Prints itself, and shows as tables in notebooks."""

    @property
    def _heading(self) -> str:
        raise NotImplementedError

    @property
    def _sheets(self) -> Sequence[Sheet]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._heading}>"

    def __str__(self) -> str:
        return as_text(self._heading, self._sheets)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return as_html(self._heading, self._sheets)


def cell(name: str, value: Any) -> str:
    """A value of a column of that name.

    >>> cell("flops", 1814073344), cell("width", 1024), cell("kept", None), cell("share", 0.5)
    ('1.81 G', '1,024', '-', '50.0%')
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return plain(value)
    if name == "share":
        return f"{value:.1%}"
    return f"{value:,}" if name in ("width", "kept", "axes", "channels") else quantity(name, value)


def sheet(title: str, records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Sheet:
    """The first rows of records, in these columns."""
    rows = tuple(tuple(cell(name, row[name]) for name in columns) for row in records[:ROWS])
    more = f"{plural(len(records) - ROWS, 'more row')}: to_records" if len(records) > ROWS else ""
    return Sheet(title, tuple(map(cost_name, columns)), rows, more)


def as_text(heading: str, sheets: Sequence[Sheet]) -> str:
    """Paragraphs of aligned columns.

    >>> print(as_text("a.onnx", [Sheet("Costs", ("cost", "value"), (("FLOPs", "1.81 G"), ("params", "512")))]))
    a.onnx
    <BLANKLINE>
    Costs
      cost     value
      FLOPs   1.81 G
      params     512
    """
    return "\n".join([plain(heading), *(line for each in sheets for line in ("", each.title, *_lines(each)))])


def _lines(of: Sheet) -> list[str]:
    table = [of.headings, *((shorten(first, WIDEST), *rest) for first, *rest in of.rows)]
    wide = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *rest in table:
        cells = (text.rjust(width) for text, width in zip(rest, wide[1:], strict=True))
        lines.append("  ".join(["", first.ljust(wide[0]), *cells]).rstrip())
    return [*lines, *([f"  {of.more}"] if of.more else [])]


def as_html(heading: str, sheets: Sequence[Sheet]) -> str:
    """A block with a table for every sheet; names are escaped.

    >>> print(as_html("<b>", []).partition("</style>")[2])
    <p>&lt;b&gt;</p></div>
    """
    tables = "".join(map(_table, sheets))
    return f'<div class="onnxmorph"><style>{STYLE}</style><p>{escape(plain(heading))}</p>{tables}</div>'


def _table(of: Sheet) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in of.headings)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in of.rows)
    more = f"<p>{escape(of.more)}</p>" if of.more else ""
    table = f"<table><caption>{escape(of.title)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"{table}{more}"
