"""What MkDocs is told beyond mkdocs.yml: which files outside docs/ belong to the site, and the reference.

The home page is the README, so that nothing is said twice; CONTRIBUTING, CHANGELOG and what pages link to outside
docs/ (plots, tables, device files) come along. Links are written as GitHub reads them, and turned here.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from posixpath import normpath, relpath

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
FILE = re.compile(r"(?<=\[)[\w./]+\.md(?=\]\(([^)#\s]+))")
DOCTEST = re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
# Page of the reference to the modules on it: all that a user imports. A function that is called as its module is on
# the page of the module.
REFERENCE = {
    "analysis": ("analysis", "bounds", "budget", "polynomial", "memory", "importance", "graph", "model", "files"),
    "surgery": ("surgery.morph", "surgery.verify", "structure", "alive"),
    "pytorch": (
        *("adapters.torch", "adapters.torch_algorithm", "adapters.torch_log"),
        *("adapters.lightning", "adapters.transformers", "converters.torch", "converters.torch_back"),
    ),
    "frameworks": (
        *("adapters.jax", "adapters.keras", "adapters.keras_fit"),
        *("converters.jax", "converters.keras", "converters.tensorflow"),
        *("adapters.standing", "training", "channel_map", "magnitudes", "controller"),
    ),
    "algorithm": ("rounds", "algorithm", "visited", "sweeps"),
    "latency": (
        *("latency", "latency.classic", "latency.machine", "latency.measured", "latency.roofline"),
        *("calibration", "calibration.calibrate", "calibration.compare"),
    ),
    "explaining": ("explain", "diagram", "graphs"),
    "errors": ("errors",),
}
TITLES = {"pytorch": "PyTorch", "frameworks": "Other frameworks", "algorithm": "The whole algorithm"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what stands elsewhere, or nowhere."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    files.append(File.generated(config, "examples/index.md", content=_examples()))
    for page, modules in REFERENCE.items():
        files.append(File.generated(config, f"reference/{page}.md", content=_reference(page, modules)))
    for page in [f for f in files if f.is_documentation_page()]:
        for link in LINK.findall(page.content_string):
            path = _target(page.src_uri, link)
            if path not in files.src_uris and (ROOT / path).is_file():
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site; what is called by its file gets the title of the page."""
    uri = page.file.src_uri

    def titled(link: re.Match[str]) -> str:
        file = files.get_file_from_path(_target(uri, link[1]))
        return "" if file is None else file.content_string.partition("\n")[0].removeprefix("# ")

    markdown = FILE.sub(lambda link: titled(link) or link[0], markdown)
    return LINK.sub(lambda link: relpath(_target(uri, link[1]), uri.rpartition("/")[0] or "."), markdown)


def _target(uri: str, link: str) -> str:
    """Where a link on a page leads, from the root of the site; files outside docs/ keep their path there."""
    page = {target: source for source, target in PAGES.items()}.get(uri, f"docs/{uri}")
    path = normpath(f"{page.rpartition('/')[0] or '.'}/{link}")
    place = PAGES.get(path, path.removeprefix("docs/"))
    return f"{place}/index.md" if (ROOT / path).is_dir() else place


def _decisions() -> str:
    found = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = [(path, path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")) for path in found]
    lines = [f"* [{path.name[:4]}]({path.name}): {title}" for path, title in titles]
    return "# Decisions\n\nWhat was decided while onnxmorph was built, why, and what it costs.\n\n" + "\n".join(lines)


def _examples() -> str:
    """What the first line of every script says; of a notebook its title."""
    lines = []
    for path in sorted((ROOT / "examples").glob("*.py")):
        about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        lines.append(f"* [{path.name}](../../examples/{path.name}): {about}")
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        title = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"][0].strip("# \n")
        lines.append(f"* [{path.name}](../../examples/{path.name}), a notebook: {title}.")
    return "# Examples\n\nWhole programs to start from, on images that come with scikit-learn.\n\n" + "\n".join(lines)


def _reference(page: str, modules: tuple[str, ...]) -> str:
    about = "From docstrings. What stands here is for use; what does not is internal, and may change in any release."
    parts = [f"# {TITLES.get(page, page.capitalize())}", about]
    for name in modules:
        source = name if name.startswith("converters.") else f"onnxmorph.{name}"
        parts.append(f"## onnxmorph.{name}\n\n::: {source}")
    return "\n\n".join(parts) + "\n"


class Doctests(Extension):
    """Doctests become code blocks: as Markdown ``>>>`` is a quotation in a quotation in a quotation."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        """Rewrite the docstring of an object before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
