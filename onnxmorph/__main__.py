"""The program ``onnxmorph``, also ``python -m onnxmorph``: nothing is imported before an interrupt is met."""

import sys


def main() -> None:
    """The entry point."""
    try:
        from onnxmorph.cli import main as start

        start()
    except KeyboardInterrupt:  # while modules were read, or while leaving
        print("error: interrupted; nothing was written  [interrupted]", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
