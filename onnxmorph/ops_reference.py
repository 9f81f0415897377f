"""docs/ops.md, made from the rule table: ``python -m onnxmorph.ops_reference > docs/ops.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxmorph.rules import TABLE, Cost, Rule

HEAD = """# Ops

Made by `python -m onnxmorph.ops_reference > docs/ops.md` from the rule table in `onnxmorph/rules/`.

What each op says about its axes, in the notation of [algebra.md](algebra.md): `(a b)` is an ordered product of factors,
`(a + b)` a concatenation, `[a]` stays because the op depends on its positions, `{a}` may go and what remains is
averaged over, `a...` stands for as many axes as there are, `_` for a tensor of values. Where attributes or shapes
decide the equation, an example stands here. An op that is not listed fixes all that it touches, and is reported.

*Counts* are floating-point operations: a number times the product of the factors; `MAC` marks multiply-accumulates, of
which each counts 2. An op without a number moves or regroups and counts nothing."""

STAYS = """## Ops whose axes always stay

Each counts one operation, or the number given, for every element that it writes."""


def reference() -> str:
    """The reference as Markdown."""
    return "\n\n".join([HEAD, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    for domain in sorted({d for d, _ in TABLE}):
        rows = [(*_about(r), r.op) for (d, _), r in sorted(TABLE.items()) if d == domain and not r.fixed]
        if rows:
            yield f"## {domain or 'ai.onnx'}\n\n" + _table(("op", "equation", "counts", "notes"), rows)
    fixed = [
        (f"`{r.fixed[0]}`", r.fixed[1], ".".join(filter(None, key))) for key, r in sorted(TABLE.items()) if r.fixed
    ]
    yield f"{STAYS}\n\n" + _table(("op", "code", "why"), fixed)


def _about(rule: Rule) -> tuple[str, str, str]:
    """Equation, cost and notes: the docstring of the function that binds the rule."""
    text = " ".join((rule.bind.__doc__ or "").split())
    _, equation, rest = text.split("``", 2)
    return f"`{equation}`", " + ".join(_counts(rule.cost)), rest.lstrip(":,.; ").replace("``", "`")


def _counts(cost: Cost | None) -> Iterator[str]:
    while cost is not None:
        yield f"{cost.count} · {cost.factors or 'as its form says'}" + (" MAC" if cost.macs else "")
        cost = cost.plus


def _table(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    """Rows end with the op; ops that say the same share a line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for *cells, op in rows:
        alike.setdefault(tuple(cells), []).append(op)
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [_line([", ".join(ops), *cells]) for cells, ops in sorted(alike.items(), key=lambda item: item[1])]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")
