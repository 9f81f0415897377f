"""The site is built without a network and is whole: links lead somewhere, and what users import is described."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import onnxmorph
from doc_blocks import PAGES, ROOT, blocks

pytestmark = pytest.mark.xdist_group("site")  # which is built once

REFERENCE = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["REFERENCE"]
MODULES = [module for modules in REFERENCE.values() for module in modules]
OFFLINE = """
import socket, sys
from mkdocs.__main__ import cli

def refuse(*arguments, **options):
    raise AssertionError("the network is asked for something")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
cli(["build", "--strict", "-d", sys.argv[1]])
"""


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        place = given.get("href") or given.get("src")
        if place:
            (self.links if tag == "a" else self.loads).append(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """Path to page; beside it the files that are no pages."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-c", OFFLINE, out], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    return {n: Page((out / n).read_text(encoding="utf-8") if n.endswith(".html") else "") for n in names}


def test_links_and_what_pages_load_are_there(site: dict[str, Page]) -> None:
    pages = {name: page for name, page in site.items() if name.endswith(".html") and name != "404.html"}
    assert len(pages) > 50
    for name, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme:
                assert link in page.links, f"{name} loads {link}"
                continue
            path = Path("/", Path(name).parent, unquote(parts.path)).resolve().relative_to("/").as_posix()
            target = site.get(path if parts.path else name)
            assert target is not None, f"{name} links to {link}, which is not there"
            assert unquote(parts.fragment) in target.ids or parts.fragment == "__skip", f"{name}: no {link}"


def test_every_page_is_in_the_navigation(site: dict[str, Page]) -> None:
    listed = {urlsplit(link).path for link in site["changelog.html"].links}  # a page that links to nothing itself
    for page in PAGES:
        name = page.removeprefix("docs/").removesuffix(".md") + ".html"
        name = {"README.html": "index.html"}.get(name, name.lower() if "/" not in page else name)
        assert name in listed or name.startswith("decisions/"), f"{page} is not in mkdocs.yml"
    decided = {link for link in site["decisions/index.html"].links}
    assert {p.with_suffix(".html").name for p in (ROOT / "docs" / "decisions").glob("*.md")} <= decided


def imported(source: str) -> set[str]:
    """The names of onnxmorph that a program imports, with their modules."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "onnxmorph":
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("onnxmorph."))
    return found


def path_of(module: str) -> Path:
    name = module.replace(".", "/")
    folder = ROOT if module.startswith("converters.") else ROOT / "onnxmorph"
    return folder / f"{name}.py" if (folder / f"{name}.py").is_file() else folder / name / "__init__.py"


def public(module: str) -> set[str]:
    """What a module offers: its ``__all__``, or its functions and classes. Constants say themselves what they are."""
    body = ast.parse(path_of(module).read_text(encoding="utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return {name for name in ast.literal_eval(node.value) if not name.isupper()}
    return {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")}


@pytest.fixture(scope="module")
def described(site: dict[str, Page]) -> set[str]:
    """The names in the reference; those of converters/ as they are installed, and functions called as their module."""
    found = {each for page in REFERENCE for each in site[f"reference/{page}.html"].ids}
    found |= {f"onnxmorph.{each}" for each in found if each.startswith("converters.")}
    return found | {re.sub(r"\.(\w+)\.\1$", r".\1", each) for each in found}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_described(module: str, described: set[str]) -> None:
    names = {f"onnxmorph.{module}.{name}" for name in public(module)}
    assert names and names <= described


def test_what_users_import_is_in_the_reference(described: set[str]) -> None:
    sources = [b.text for page in PAGES for b in blocks(page) if b.language == "python" and page != "CONTRIBUTING.md"]
    sources += [p.read_text(encoding="utf-8") for p in (ROOT / "examples").glob("*.py")]
    used = {name for source in sources for name in imported(source)}
    homes = {f"{getattr(onnxmorph, name).__module__}.{name}" for name in onnxmorph.__all__}
    top = {f"onnxmorph.{name}" for name in (*onnxmorph.__all__, *MODULES)}
    assert used - top | homes <= described


def test_pages_say_what_they_are_for() -> None:
    for page in PAGES:
        title, empty, *rest = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert re.match(r"# \S", title) and not empty and rest, f"{page} has no title with something below it"
