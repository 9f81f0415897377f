"""docs/cli.md, made from the help texts: ``python -m onnxmorph.cli_reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from onnxmorph.cli import app

HEAD = """# The command line

Made by `python -m onnxmorph.cli_reference > docs/cli.md`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 fine; 1 cannot do it (for `verify`: the models
differ by more than 1e-4); 2 wrong usage; 130 interrupted. An error is one sentence and a code that stays the same
across releases; with `--json` it is `{"error": {"code", "message"}}` on stdout. Outputs appear whole or not at all,
and never over an input without `--force`."""


def reference() -> str:
    """The reference as Markdown."""
    return "\n\n".join([HEAD, *_sections()]) + "\n"


def _sections() -> Iterator[str]:
    program = typer.main.get_command(app)
    for name, command in program.commands.items():  # type: ignore[attr-defined] # a group of commands
        text, _, example = (command.help or "").partition("\n\n\b\nExample:\n")
        context = typer.Context(command)
        records = [record for p in command.params if (record := p.get_help_record(context))]
        rows = "\n".join(f"| `{term}` | {_cell(about)} |" for term, about in ((_cell(t), a) for t, a in records))
        yield f"## onnxmorph {name}\n\n{text}\n\n```\n{example.strip()}\n```\n\n| | |\n|---|---|\n{rows}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("  [", " [")


if __name__ == "__main__":
    print(reference(), end="")
