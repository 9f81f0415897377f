"""A real Chromium without a window, and what it complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """The system's browser. Without one tests are skipped, but not where CI is set: they fail there."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = f"no Chromium is installed (none of {', '.join(NAMES)}); apt-get install chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    path = executable()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, what its console said, and the addresses that it asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert self.said == []
        assert [address for address in self.asked if not address.startswith("file://")] == []
        assert len(self.asked) == 1


@contextmanager
def opened(browser: Browser, file: Path, width: int = 1280, theme: str = "light") -> Iterator[Opened]:
    """Open a file; nothing may be said on the console, and nothing else be asked for, until it is closed."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    found = Opened(page)
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("dialog", lambda dialog: found.said.append(dialog.message))
    page.on("request", lambda request: found.asked.append(request.url))
    page.goto(file.as_uri())
    yield found
    found.check()
    page.close()
