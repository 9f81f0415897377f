"""docs/cli.md, made from the help texts: ``python -m onnxmorph.cli_reference > docs/cli.md``."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from onnxmorph.cli import app

HEAD = """# The command line

Made by `python -m onnxmorph.cli_reference > docs/cli.md`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 fine; 1 cannot do it (for `verify`: the models
differ by more than 1e-4); 2 wrong usage; 130 interrupted. An error is one sentence and a code that stays the same
across releases. Outputs appear whole or not at all, and never over an input without
`--force`; interrupted by Ctrl-C, too.

* **More.** Tables show what matters most. `--verbose` (`-v`) shows every row, and why: what every group gave, every
  axis that stays with its reason, every kernel, every output.
* **For programs.** `--json` prints one JSON object, of a documented, versioned schema: [json.md](json.md). Errors are
  JSON then as well, and the exit code is the same.
* **Pipes.** `-` for a model reads it from stdin, and `-o -` writes it to stdout, with what was done on stderr:
  `cat model.onnx | onnxmorph shrink - -o - --budget flops=50% | onnxmorph analyze -`. A model that keeps weights in
  other files cannot come that way.
* **Terminals.** Colours and bars with the time left are for terminals only; `NO_COLOR=1` turns colours off.
* **Completion.** `onnxmorph --install-completion` sets it up for bash, zsh, fish or PowerShell, and
  `onnxmorph --show-completion` prints the script. Names of costs and devices are completed too."""


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
