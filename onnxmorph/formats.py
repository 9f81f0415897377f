"""Versions of our file formats: MAJOR, or MAJOR.MINOR as a text (docs/files.md).

A higher minor only adds, so that it can be read without what it added; a higher major means something else.
"""

from __future__ import annotations

import re

A_VERSION = 'a whole number, or a text as "1.2"'


def version_of(value: object) -> tuple[int, int] | None:
    """Major and minor; None where it is no version.

    >>> version_of(1), version_of("1.12"), version_of(1.5)
    ((1, 0), (1, 12), None)
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", str(value))
    if found is None or type(value) not in (int, str):  # a number 1.10 would be 1.1
        return None
    return int(found[1]), int(found[2] or 0)


def refusal(source: str, found: object, known: int) -> str:
    """Why a file of another major version is not read."""
    return f"{source}: version: this onnxmorph reads {known}, not {found}; upgrade onnxmorph"
