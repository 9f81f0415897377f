"""``python -m onnxmorph.cli``."""

from onnxmorph.cli import main

if __name__ == "__main__":
    main()
