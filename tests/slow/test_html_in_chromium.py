"""The page of HTML in a browser: nothing leaves it, nothing overflows, and what it does by script works.

Chromium is the system's. Where axe-core is (`npm install axe-core`, its folder in AXE_CORE), it looks for barriers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from libraries import needs
from report.conftest import SENSITIVITY, make_manifest, stages_with
from report.pages import evidence_of, example
from report.test_html import HOSTILE, LAYERS, with_classes

from optimize.report.html.page import render_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core")) / "axe.min.js"
THEMES, WIDTHS = ("light", "dark"), (360, 1200)
pytestmark = [
    pytest.mark.slow,
    needs("playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


@dataclass
class Seen:
    """A page, and what it said on the console and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def width(self) -> int:
        """The width of all that can be scrolled to."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # A container's user may not make the namespaces that Chromium's own sandbox wants.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A page with everything on it, hostile words among it."""
    tables = stages_with(sensitivity=SENSITIVITY, layers=LAYERS)
    manifest = make_manifest(stages=tables, measurements=with_classes("good", HOSTILE, "middling"))
    asked = [example(f"text {each}", after="good" if each % 3 else "bad", tokens=each + 3) for each in range(90)]
    asked += [example(HOSTILE, before="bad", tokens=50), example("word" * 200, before="bad", after="awful")]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(manifest, evidence_of(manifest, *asked)), encoding="utf-8")
    return path


@pytest.fixture
def look(browser, file) -> Iterator[Callable[..., Seen]]:
    """Open the page in a theme at a width; `unguarded` lets a test bring a script of its own."""
    contexts = []

    def call(theme: str = "light", width: int = 1200, *, unguarded: bool = False) -> Seen:
        context = browser.new_context(
            color_scheme=theme,
            viewport={"width": width, "height": 800},
            reduced_motion="reduce",
            bypass_csp=unguarded,
        )
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.said.append(message.text))
        seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        seen.page.goto(file.as_uri())
        return seen

    yield call
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_it_is_quiet_asks_for_nothing_and_fits_in_both_themes(theme, width, look, file, tmp_path):
    seen = look(theme, width)
    picture = seen.page.screenshot(path=tmp_path / f"{theme}-{width}.png", full_page=True)

    assert seen.said == []
    assert seen.asked == [file.as_uri()]
    assert seen.width() <= width
    assert len(picture) > 50_000  # an empty page of that length has a tenth of it


def test_dark_is_dark_and_light_is_light(look):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert look("light").page.evaluate(colour) == "rgb(255, 255, 255)"
    assert look("dark").page.evaluate(colour) == "rgb(17, 20, 24)"


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; name its folder in AXE_CORE")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_no_barrier(theme, width, look):
    page = look(theme, width, unguarded=True).page
    page.evaluate(AXE.read_text(encoding="utf-8"))

    found = page.evaluate("axe.run()")["violations"]
    assert [(each["impact"], each["id"]) for each in found] == []


def test_examples_are_filtered_by_kind_and_words(look):
    page = look().page
    shown, said = page.locator(".flips > li:visible"), page.locator("form output")
    assert (shown.count(), said.inner_text()) == (20, "20 of 32 shown")

    page.locator("select[name=kind]").select_option("lost")
    assert (shown.count(), said.inner_text()) == (20, "20 of 30 shown")
    page.locator("input[name=words]").fill("text 27")
    assert (shown.count(), said.inner_text()) == (1, "1 of 1 shown")


def test_a_button_shows_all_examples_and_goes_on_where_they_ended(look):
    page = look().page
    shown = page.locator(".flips > li:visible")
    last = shown.nth(19).inner_text()
    more = page.get_by_role("button", name="Show all 32")
    more.focus()
    page.keyboard.press("Enter")

    assert shown.count() == 32
    assert more.is_hidden()
    assert shown.nth(19).inner_text() == last
    assert page.evaluate("document.activeElement.innerText") == shown.nth(20).inner_text()


def test_tables_are_sorted_by_keyboard(look):
    page = look().page
    table = page.get_by_role("table", name="F1 by class")
    button = table.get_by_role("button", name="class")
    first = table.locator("tbody th").first
    before = first.inner_text()

    button.focus()
    page.keyboard.press("Enter")
    up = first.inner_text()
    page.keyboard.press("Enter")
    assert (before, up, first.inner_text()) == ("good", HOSTILE, "middling")
    assert table.locator("th[aria-sort=descending]").count() == 1


def test_a_mark_that_is_pointed_at_says_what_it_is(look):
    page = look().page
    mark = page.locator("figure [aria-label^='word_embeddings']:visible").first
    mark.scroll_into_view_if_needed()
    # Scrolling hides what is said of a mark, and is heard of a frame later.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    mark.hover()

    assert page.get_by_role("tooltip").inner_text() == "word_embeddings: 41.0 dB"


def test_everything_is_there_without_scripts(browser, file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())

    assert page.locator(".flips > li:visible").count() == 32
    assert page.locator("button.more").is_hidden()
    assert page.locator("figure svg:visible").count() == 9
    assert page.locator("form.filter").is_hidden()
    context.close()


def test_words_of_the_data_run_nowhere(look):
    page = look(unguarded=True).page
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert HOSTILE in page.locator(".flips").text_content()
