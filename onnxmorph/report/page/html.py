"""The report as one HTML file: styles, scripts and numbers inside, nothing from elsewhere."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template

from onnxmorph.report.drawing import Document, shorten

SCRIPTS = ("dom.js", "table.js", "charts.js", "tradeoff.js", "views.js", "main.js")  # in the order in which they run
# What would end or begin an element, or a comment, inside a script; JSON has escapes for all of it.
ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(document: Document) -> str:
    """The whole file.

    Names from models are in the document, as JSON without markup. The policy lets the page's own script run and nothing
    else, and loads nothing.
    """
    style = _read("page.css")
    script = "\n".join(map(_read, SCRIPTS))
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'"
    names = [shorten(each["name"], 50) for each in document["subjects"]]
    title = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Template(_read("page.html")).substitute(
        policy=escape(policy, quote=True),
        version=escape(document["program"]),
        title=escape(title),
        style=style,
        script=script,
        data=json.dumps(document, separators=(",", ":"), allow_nan=False).translate(ESCAPES),
    )


def _read(name: str) -> str:
    return files("onnxmorph.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
