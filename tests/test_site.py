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

REFERENCE = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["REFERENCE"]
MODULES = [module for modules in REFERENCE.values() for module in modules]
OFFLINE = """
import socket, sys
from mkdocs.__main__ import cli

def refuse(*arguments, **options):
    raise AssertionError("the network is asked for something")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
cli(["build", "-q", "--strict", "-d", sys.argv[1]])
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
    home = {urlsplit(link).path for link in site["index.html"].links}
    for page in PAGES:
        name = page.removeprefix("docs/").removesuffix(".md") + ".html"
        name = {"README.html": "index.html"}.get(name, name.lower() if "/" not in page else name)
        assert name in home or name.startswith("decisions/"), f"{page} is not in mkdocs.yml"
    decided = {link for link in site["decisions/index.html"].links}
    assert {p.with_suffix(".html").name for p in (ROOT / "docs" / "decisions").glob("*.md")} <= decided


def imported(source: str) -> set[str]:
    """The modules of onnxmorph that names are imported from, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onnxmorph."):
            found.add((node.module or "").removeprefix("onnxmorph."))
        elif isinstance(node, ast.ImportFrom) and node.module == "onnxmorph":
            found.update(alias.name for alias in node.names if alias.name not in onnxmorph.__all__)
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("onnxmorph.") for a in node.names if a.name.startswith("onnxmorph."))
    return found


def test_what_users_import_is_in_the_reference() -> None:
    sources = [b.text for page in PAGES for b in blocks(page) if b.language == "python" and page != "CONTRIBUTING.md"]
    sources += [p.read_text(encoding="utf-8") for p in (ROOT / "examples").glob("*.py")]
    used = {module for source in sources for module in imported(source)}
    homes = {getattr(onnxmorph, name).__module__.removeprefix("onnxmorph.") for name in onnxmorph.__all__}
    packages = {module.rpartition(".")[0] for module in MODULES}  # latency: described by its modules
    assert used | homes <= {*MODULES, *packages}


def path_of(module: str) -> Path:
    name = module.replace(".", "/")
    folder = ROOT if module.startswith("converters.") else ROOT / "onnxmorph"
    return folder / f"{name}.py" if (folder / f"{name}.py").is_file() else folder / name / "__init__.py"


@pytest.mark.parametrize(("page", "module"), [(page, m) for page, modules in REFERENCE.items() for m in modules])
def test_every_public_name_is_described(page: str, module: str, site: dict[str, Page]) -> None:
    source = module if module.startswith("converters.") else f"onnxmorph.{module}"
    public = [n for n in ast.parse(path_of(module).read_text(encoding="utf-8")).body if named(n)]
    for node in public:
        assert ast.get_docstring(node), f"{module}.{node.name} has no docstring"
        assert f"{source}.{node.name}" in site[f"reference/{page}.html"].ids
    assert public or path_of(module).name == "__init__.py"


def named(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")


def test_pages_say_what_they_are_for() -> None:
    for page in PAGES:
        title, empty, *rest = (ROOT / page).read_text(encoding="utf-8").splitlines()
        assert re.match(r"# \S", title) and not empty and rest, f"{page} has no title with something below it"
