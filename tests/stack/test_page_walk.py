"""Every page in every state in a real Chromium, on rows alone: layout, contrast, keyboard, and pages that stand open.

What buttons do is pressed in process (``tests/dashboard/test_page_states.py``) and on the running product
(``test_live_pages``, ``test_operator_tasks``); here a button must do something, and what it posts is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Dialog, Error, Page, Request, Route, expect

from tests import page_table, page_world
from tests.page_table import PageState
from tests.page_world import GONE
from tests.stack.conftest import eventually
from tests.stack.page_server import PageServer

pytestmark = [pytest.mark.stack, pytest.mark.any_database, pytest.mark.long]
WIDTHS = (390, 1024, 1280, 1366, 1440, 1920)
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
TOO_WIDE = """() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return "";
    const wide = [...document.querySelectorAll("body *")].filter(one => one.getBoundingClientRect().right > width + 1);
    const last = wide.pop();
    return `${document.documentElement.scrollWidth - width} px too wide: ${last?.tagName} ${last?.className} ${last?.textContent.trim().slice(0, 60)}`;
}"""
KINDS = sorted({kind for kind, _ in page_table.OBJECTS.values()})


@pytest.fixture(autouse=True)
def _from_the_start(served: PageServer) -> Iterator[None]:
    """Each test finds the page wide and light, and leaves no error of the console."""
    served.page.set_viewport_size({"width": 1440, "height": 900})
    served.page.emulate_media(color_scheme="light")
    served.page.problems = []  # type: ignore[attr-defined]
    yield
    # The console also notes each answer that is not 200, such as that of an object that is gone.
    noted = re.compile("Failed to load resource|Response Status Error Code 404")
    assert [one for one in served.page.problems if not noted.match(one)] == []  # type: ignore[attr-defined]


def of_kind(kind: str) -> list[PageState]:
    return [one for one in (*page_table.objects(), *page_table.questions()) if not one.is_gone and kind_of(one) == kind]


def kind_of(one: PageState) -> str:
    return page_table.QUESTIONS.get(one.route) or page_table.OBJECTS[one.route][0]


def look(server: PageServer, pages: list[PageState], page: Page | None = None) -> dict[str, Any]:
    """What is wrong with the layout and for axe. Each page in one theme, the first of each route in both."""
    page = page or server.page
    wrong: dict[str, Any] = {}
    seen: set[str] = set()
    for number, one in enumerate(pages):
        page.goto(server.base + one.path)
        name = f"{one.route} ({one.state})"
        if not page.locator("h1").count():
            wrong[name] = "has no heading"
        themes = ("light", "dark") if one.route not in seen else ("light", "dark")[number % 2 :][:1]
        seen.add(one.route)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            if too_wide := page.evaluate(TOO_WIDE):
                wrong[f"{name} at {width}"] = too_wide
        page.set_viewport_size({"width": 1440, "height": 900})
        for theme in themes:
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            for found in Axe().run(page, options=RULES).response["violations"]:
                wrong[f"{name} {theme} {found['id']}"] = [node["html"][:200] for node in found["nodes"]][:3]
    return wrong


def assert_nothing(wrong: dict[str, Any]) -> None:
    """Fails with each finding in whole; pytest shows only the first of a comparison."""
    assert not wrong, "\n".join(["what is wrong:", *(f"{name}: {what}" for name, what in wrong.items())])


def test_lists_fit_and_axe_knows_no_violation(served):
    assert_nothing(look(served, list(page_table.lists())))


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_one_object_fit_in_every_state_and_axe_knows_no_violation(served, kind):
    assert_nothing(look(served, of_kind(kind)))


SIGNED_OUT = ("/login/", "/login/?next=/pools/&ended=1", "/login/x/y/", "/welcome/x/y/", "/no/such/page")


def test_pages_of_who_is_not_signed_in_fit_and_axe_knows_no_violation(served, browser):
    page = browser.new_page(reduced_motion="reduce")
    wrong = look(served, [PageState("signed out", path, path) for path in SIGNED_OUT], page)
    wrong |= look(served, [PageState("not found", "signed in", "/pools/none/")])
    page.close()
    assert_nothing(wrong)


# Buttons -----------------------------------------------------------------------------------------------------

WATCH = """() => {
    window.effects = [];
    const note = kind => window.effects.push(kind);
    new MutationObserver(all => { if (all.some(one => !one.target.closest?.("time, #conn, #nav"))) note("change"); })
        .observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
    for (const name of ["invalid", "toggle", "close", "beforetoggle"]) document.addEventListener(name, () => note(name), true);
    const focused = document.activeElement;
    document.addEventListener("focusin", event => { if (event.target !== focused && !event.target.matches("button, summary")) note("focus"); });
    navigator.clipboard.writeText = async () => note("copy");
}"""
BUTTONS = "#main button, #main summary"


def visible(page: Page) -> list[tuple[int, str]]:
    """The buttons that can be seen and pressed: their positions among all, and what they say."""
    return [
        (place, name)
        for place, name in page.evaluate(
            """selector => [...document.querySelectorAll(selector)].map((one, place) => [place, one])
                .filter(([, one]) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled)
                .map(([place, one]) => [place, (one.title || one.getAttribute("aria-label") || one.innerText).trim().replace(/\\s+/g, " ")])""",
            BUTTONS,
        )
    ]


class Presses:
    """Presses buttons; what a form posts is noted and not sent."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: list[str] = []
        page.route("**/*", self._route)
        page.on("request", self._note)
        page.on("dialog", self._accept)
        page.on("download", self._note_download)

    def stop(self) -> None:
        self.page.unroute("**/*")
        self.page.remove_listener("request", self._note)
        self.page.remove_listener("dialog", self._accept)
        self.page.remove_listener("download", self._note_download)

    def _accept(self, dialog: Dialog) -> None:
        dialog.accept()  # a form that was changed asks before it is left

    def _note_download(self, _: Any) -> None:
        self.sent.append("download")

    def _route(self, route: Route) -> None:
        if route.request.method == "POST":
            self.sent.append("post")
            route.fulfill(status=204)  # the page stays
        else:
            route.continue_()

    def _note(self, request: Request) -> None:
        if request.is_navigation_request() or request.headers.get("hx-target") == "question":
            self.sent.append("request")

    def has_effect(self, place: int) -> bool:
        """Whether anything happened within three seconds."""
        self.sent.clear()
        self.page.evaluate(WATCH)
        button = self.page.locator(BUTTONS).nth(place)
        try:
            button.click(timeout=5000, no_wait_after=True)
        except Error:  # something lies above it
            return False
        for _ in range(30):
            try:
                if self.sent or self.page.evaluate("window.effects?.length ?? 1"):
                    return True
            except Error:  # the page is being left
                return True
            self.page.wait_for_timeout(100)
        return False


@pytest.mark.parametrize("of", ["lists", *KINDS])
def test_no_button_is_dead(served, of):
    """Each button of each page, once for each of its words."""
    pages = (
        list(page_table.lists()) if of == "lists" else [one for one in of_kind(of) if one.route in page_table.OBJECTS]
    )
    presses = Presses(served.page)
    dead, seen = [], set()
    for one in pages:
        served.open(one.path)
        for place, name in visible(served.page):
            words = re.sub(r"c-[0-9a-f]{8}|[a-z]+-[\w-]*\d[\w-]*", "*", name)
            if (one.route, words) in seen:
                continue
            seen.add((one.route, words))
            served.open(one.path)
            if not presses.has_effect(place) and _is_dead(presses, name):
                dead.append(f"{one.route} ({one.state}): {name}")
    presses.stop()
    print(len(seen), "buttons")
    assert not dead, "\n".join(["without effect:", *dead])


# Pages that stand open ---------------------------------------------------------------------------------------


def refreshed(page: Page) -> None:
    """The page has asked for what changed, and shows it."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(1000)
    shown = ""
    for _ in range(20):
        before, shown = shown, page.locator("#main").inner_text()
        if before == shown:
            return
        page.wait_for_timeout(400)


@pytest.mark.parametrize("kind", KINDS)
def test_after_each_change_every_button_of_an_open_page_does_something(served, kind):
    """The page is opened in one state and stays while its object goes through all others."""
    id = page_world.id_of(kind, "live")
    states = list(page_world.KINDS[kind])
    presses = Presses(served.page)
    dead: list[str] = []
    for route, (of, queries) in page_table.OBJECTS.items():
        if of != kind:
            continue
        path = page_table.path_of(route, page_world.address(kind, id)) + queries[0]
        served.mover.tell("move", kind, states[0], id)
        served.open(path)
        was = states[0]
        for state in (*states[1:], *reversed(states[:-1])):
            served.mover.tell("move", kind, state, id)
            refreshed(served.page)
            for place, name in visible(served.page):
                if not presses.has_effect(place) and _is_dead(presses, name):
                    dead.append(f"{route}, {was} then {state}: {name}")
                _close(served, path)
            was = state
        served.mover.tell("move", kind, GONE, id)
        refreshed(served.page)
    presses.stop()
    assert not dead, "\n".join(["without effect:", *dead])


def _is_dead(presses: Presses, name: str) -> bool:
    """Whether the button is still there when the page has settled, and does nothing then either."""
    refreshed(presses.page)
    return any(not presses.has_effect(place) for place, again in visible(presses.page) if again == name)


def _close(server: PageServer, path: str) -> None:
    """What the button opened is closed; the page is the same one, unless the button led away."""
    page = server.page
    page.wait_for_timeout(150)
    if page.url != server.base + path:
        server.open(path)
        return
    page.keyboard.press("Escape")
    page.evaluate("document.querySelectorAll('dialog[open]').forEach(one => one.close())")
    page.evaluate(
        "document.querySelectorAll('#main [aria-busy=true]').forEach(one => { one.removeAttribute('aria-busy'); one.disabled = false; })"
    )


STAYING_S = 35
AT_ONCE = 10
"""Tabs that are open at the same time: more than a browser opens connections to one server."""
TOP = "window.read?.isConnected ? window.read.getBoundingClientRect().top : null"
"""Where the element is that the reader looks at; null if the page has replaced it."""
COUNT = "document.querySelectorAll('*').length"


def test_pages_that_stand_open_for_35_s_keep_what_their_reader_does(served, browser):
    """Eight tabs at a time, while things change: what is typed, scrolled and opened stays, the page does not grow."""
    ids = {kind: page_world.id_of(kind, "stays") for kind in ("pool", "container", "tenant", "run")}
    for kind, id in ids.items():
        served.mover.tell("move", kind, next(iter(page_world.KINDS[kind])), id)
    paths = list(dict.fromkeys(one.path.partition("?")[0] for one in page_table.lists()))
    paths += [page_table.path_of(route, page_world.address(kind, ids[kind]))
              for route, (kind, _) in page_table.OBJECTS.items() if kind in ids and route != "terminal"]  # fmt: skip
    context = served.page.context
    wrong: list[str] = []
    for start in range(0, len(paths), AT_ONCE):
        tabs = []
        for path in paths[start : start + AT_ONCE]:
            tab = context.new_page()
            errors: list[str] = []
            tab.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            tab.on("console", lambda one, errors=errors: errors.append(one.text) if one.type == "error" else None)
            tab.set_viewport_size({"width": 1280, "height": 500})
            tab.goto(served.base + path)
            tabs.append((path, tab, errors, _settle_in(tab)))
        for second in range(STAYING_S):
            kind = ("pool", "tenant")[second % 2]
            states = [one for one in page_world.KINDS[kind] if one != "200 rows"]
            served.mover.tell("move", kind, states[second // 2 % 2], page_world.id_of(kind, "noise"))
            tabs[0][1].wait_for_timeout(1000)
        for path, tab, errors, before in tabs:
            wrong += [f"{path}: {one}" for one in (*errors, *_what_changed(tab, before))]
            tab.close()
    for kind in ("pool", "tenant"):
        served.mover.tell("move", kind, GONE, page_world.id_of(kind, "noise"))
    for kind, id in ids.items():
        served.mover.tell("move", kind, GONE, id)
    assert not wrong, "\n".join(["what changed for the reader:", *wrong])


def _settle_in(tab: Page) -> dict[str, Any]:
    """A reader types into the first field, opens the first fold and scrolls. Returns how the page is then."""
    tab.wait_for_timeout(600)
    field = tab.locator(
        "#main input[type=search]:visible, #main input[type=text]:visible, #main input:not([type]):visible"
    ).first
    typed = bool(field.count())
    if typed:
        field.fill("half a wor")
    fold = tab.locator("#main details:not([open]) > summary:visible").first
    opened = bool(fold.count())
    if opened:
        fold.click()
    tab.evaluate("scrollTo(0, 120)")
    tab.wait_for_timeout(400)
    tab.evaluate("window.read = document.elementFromPoint(500, 250)")
    return {"typed": typed, "opened": opened, "top": tab.evaluate(TOP), "count": tab.evaluate(COUNT)}


def _what_changed(tab: Page, before: dict[str, Any]) -> Iterator[str]:
    if before["typed"]:
        values = tab.evaluate("[...document.querySelectorAll('#main input')].map(one => one.value)")
        if "half a wor" not in values:
            yield "what was typed is lost"
    if before["opened"] and not tab.locator("#main details[open]").count():
        yield "what was opened is closed"
    top = tab.evaluate(TOP)
    if top is not None and abs(top - before["top"]) > 2:
        yield f"what is read moved from {before['top']} to {top}"
    count = tab.evaluate(COUNT)
    if count > before["count"] * 1.3 + 100:
        yield f"grew from {before['count']} to {count} elements"
    if tab.locator(".card.stale").count():
        yield "says that it is stale"
    if tab.locator("#conn:visible").count() and tab.locator("#conn").inner_text() != "Live":
        yield f"says {tab.locator('#conn').inner_text()}"


# Filters -----------------------------------------------------------------------------------------------------

CONTROLS = """() => Object.fromEntries([...document.querySelectorAll("#main form[method=get]:not([data-ask]) :is(select, input[type=search])")]
    .filter(one => one.name && one.checkVisibility()).map(one => [one.name, one.value]))"""


def test_back_shows_the_filters_that_are_on_in_every_list(served):
    """Three filters, then three times back: the controls and the address agree at each step."""
    page, wrong, tried = served.page, [], 0
    for route in page_table.LISTS:
        served.open(page_table.path_of(route, {}))
        names = list(page.evaluate(CONTROLS))
        if not names:
            continue
        tried += 1
        steps = [(page.url, page.evaluate(CONTROLS))]
        for name in names[:3]:
            _choose(page, name)
            page.wait_for_load_state()
            steps.append((page.url, page.evaluate(CONTROLS)))
        for url, values in reversed(steps[:-1]):
            if page.url == url:
                continue
            page.go_back()
            page.wait_for_load_state()
            if page.url != url or page.evaluate(CONTROLS) != values:
                wrong.append(f"{route}: {page.url} shows {page.evaluate(CONTROLS)}, not {values}")
    print(tried, "lists with filters")
    assert tried > 5
    assert wrong == []


def _choose(page: Page, name: str) -> None:
    """Filter by the last value of this control, or search for a word."""
    control = page.locator(f"#main form[method=get]:not([data-ask]) [name='{name}']:visible").first
    submits = control.evaluate("one => one.matches('[data-submit]')")
    if control.evaluate("one => one.tagName") == "SELECT":
        values = control.evaluate("one => [...one.options].map(option => option.value)")
        if values[-1] == control.input_value():
            return
        with page.expect_navigation():
            control.select_option(values[-1])
            if not submits:
                control.evaluate("one => one.form.requestSubmit()")
    else:
        control.fill("e")
        with page.expect_navigation():
            control.press("Enter")


# Keyboard ----------------------------------------------------------------------------------------------------

REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0'], [contenteditable]")]
    .filter(one => !one.disabled && one.tabIndex >= 0 && one.type !== "hidden" && one.checkVisibility({ visibilityProperty: true })
        && !(one.type === "radio" && !one.checked))
    .map((one, number) => { one.dataset.reach = number; return number; })"""
FOCUSED = """() => {
    const one = document.activeElement;
    if (!one || one === document.body) return [null, true, ""];
    const style = getComputedStyle(one), around = getComputedStyle(one.closest("label, .search, .field") ?? one);
    const shown = [style, around].some(it => it.outlineStyle !== "none" && parseFloat(it.outlineWidth) > 0 || it.boxShadow !== "none");
    return [one.dataset.reach ?? null, shown || one.closest(".xterm, .cm-editor, iframe") !== null, one.outerHTML.slice(0, 120)];
}"""


def test_everything_is_reached_by_tab_and_shows_its_focus(served):
    wrong: dict[str, Any] = {}
    firsts = {one.route: one for one in reversed([*page_table.lists(), *page_table.objects()]) if not one.is_gone}
    page = served.page
    for route, one in firsts.items():
        served.open(one.path)
        page.wait_for_timeout(200)
        expected = set(page.evaluate(REACHABLE))
        reached: set[int] = set()
        for _ in range(len(expected) + 20):
            page.keyboard.press("Tab")
            number, has_ring, html = page.evaluate(FOCUSED)
            if number is None:
                continue
            if not has_ring:
                wrong[f"{route} {html}"] = "shows no focus"
            if int(number) in reached and int(number) == 0:
                break
            reached.add(int(number))
        missing = expected - reached
        if missing:
            wrong[route] = page.evaluate(
                "numbers => numbers.map(one => document.querySelector(`[data-reach='${one}']`)?.outerHTML.slice(0, 120))", sorted(missing)[:5]
            )  # fmt: skip
    assert wrong == {}


# Last: it takes everything away --------------------------------------------------------------------------------


def test_pages_of_an_empty_deployment_fit_and_axe_knows_no_violation(served):
    served.mover.tell("clear")
    assert_nothing(look(served, list(page_table.lists("empty"))))
    for one in page_table.lists("empty"):
        served.open(one.path)
        expect(served.page.locator("#main")).to_be_visible()
    eventually(lambda: "Nothing runs yet" in (served.open("/"), served.page.locator("#main").inner_text())[1])
