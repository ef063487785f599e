"""The dashboard in a real browser, on a real running proxy."""

from __future__ import annotations

import json
import os
import threading
from urllib.parse import quote

import pytest

from tests.e2e.dashboard.conftest import IMAGES, call, loop, printed_link, refusal

HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = {
    "now": "now",
    "incidents": "incidents",
    "keys": "by/key",
    "agents": "by/agent",
    "models": "by/model",
    "projects": "by/project",
    "providers": "by/provider",
    "agent": "by/agent/support-triage",
    "budgets": "budgets",
    "policy": "policy",
    "silences": "windows",
    "audit": "audit",
    "health": "health",
    "first-steps": "start",
}
WIDTHS = (390, 820, 1400)
TRIED = """
limits:
  - name: tried-pace
    by: [agent]
    requests: 20
    per: minute
"""
#: What a screen reader is told of the curve: its latest and its greatest value.
LOOP_IS_DRAWN = (
    "() => /most [1-9]/.test(document.querySelector("
    "'.chart[aria-label^=\"Requests per hour\"]').getAttribute('aria-label'))"
)
RELEASE_BUTTONS = "document.querySelectorAll('[aria-label^=\"Release \"]').length"
KEEP_IMAGES = bool(os.environ.get("TOKENWEIR_SCREENSHOTS"))


def picture(watched, name: str) -> None:
    if KEEP_IMAGES:
        IMAGES.mkdir(parents=True, exist_ok=True)
        watched.page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


def too_wide(watched) -> int:
    """Pixels by which a page has to be scrolled sideways."""
    return watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")


def try_a_limit(page) -> None:
    """What a limit would have done, asked on the policy's page."""
    page.locator("textarea").fill(TRIED)
    page.get_by_role("button", name="What would it have done?").click()
    page.get_by_role("cell", name="tried-pace").first.wait_for()


def test_the_whole_story(quiet, browse) -> None:
    """Sign in, first call, a loop seen live, its incident, acknowledged, released."""
    watched = browse(quiet, link=printed_link(quiet))
    page = watched.page
    page.get_by_text("Waiting for your first call…").wait_for()
    picture(watched, "waiting-for-first-call")

    assert call(quiet, "greeter", [{"role": "user", "content": "hello"}]) == 200
    page.get_by_role("heading", name="Now", exact=True).wait_for()
    page.get_by_text("Nothing is wrong.").wait_for()

    statuses: list[int] = []
    looping = threading.Thread(target=lambda: statuses.extend(loop(quiet, "refunds")))
    looping.start()
    page.get_by_text("open incident").wait_for()
    looping.join(60)
    assert 429 in statuses
    mark = page.locator("button.mark").first
    mark.wait_for()
    page.wait_for_function(LOOP_IS_DRAWN)
    picture(watched, "loop-found")
    mark.click()

    page.get_by_role("button", name="Acknowledge").wait_for()
    page.locator("main").get_by_text("refunds").first.wait_for()
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("acknowledged", exact=True).first.wait_for()

    told = refusal(quiet, "refunds", [{"role": "user", "content": "something else"}])
    assert told["scope"] == "agent refunds"
    page.goto(told["link"])  # what a developer opens who reads the error
    page.get_by_role("heading", name="Agent loop").wait_for()
    page.locator("nav").get_by_role("link", name="Now").click()
    release = page.get_by_role("button", name="Release agent refunds")
    release.first.wait_for()
    while held := release.count():
        release.first.click()
        page.get_by_label("Why (for the audit trail)").fill("the loop is mended")
        page.locator("dialog").get_by_role("button", name="Release").click()
        page.locator("dialog").wait_for(state="detached")
        page.wait_for_function(f"() => {RELEASE_BUTTONS} < {held}")
    page.get_by_text("Nobody is held back.").wait_for()
    assert call(quiet, "refunds", [{"role": "user", "content": "something else"}]) == 200
    watched.open("audit")
    page.get_by_text("the loop is mended").first.wait_for()


def test_every_page_opens_without_a_fault(busy, browse) -> None:
    """The short form of the next: each page once, small and dark; ``browse`` counts faults."""
    watched = browse(busy, width=390, theme="dark")
    for name, path in PAGES.items():
        watched.open(path)
        assert too_wide(watched) <= 0, name


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_at_every_width(troubled, browse, axe, theme) -> None:
    """No console error, no violation, no overflow, nothing serious for axe."""
    serious = []
    found = troubled.api("/api/v1/incidents")["incidents"]
    incident = next(i["id"] for i in found if i["signal"] == "agent_loop")
    pages = {**PAGES, "incident": f"incidents/{incident}"}
    for width in WIDTHS:
        watched = browse(troubled, width=width, theme=theme)
        for name, path in pages.items():
            watched.open(path)
            wide = too_wide(watched)
            assert wide <= 0, f"{name} at {width} is {wide} pixels too wide"
            if name == "policy":
                try_a_limit(watched.page)
            if name == "budgets":
                watched.page.get_by_text("Here they are").click()
            if width == 1400 or name == "now":
                picture(watched, f"{name}-{theme}" + ("" if width == 1400 else f"-{width}"))
            watched.page.evaluate(axe)
            found = watched.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious += [
                (name, width, v["id"], [n["html"][:120] for n in v["nodes"][:3]])
                for v in found["violations"]
                if v["impact"] in ("serious", "critical")
            ]
    assert serious == []


def test_hostile_names_are_text(busy, browse) -> None:
    watched = browse(busy)
    watched.open("by/agent")
    cell = watched.page.get_by_role("link", name=HOSTILE)
    cell.wait_for()
    cell.click()
    watched.page.get_by_role("heading", name=HOSTILE).wait_for()
    assert watched.page.locator("main img").count() == 0


def test_tables_sort_and_search_by_keyboard(busy, browse) -> None:
    watched = browse(busy)
    watched.open("by/agent")
    page = watched.page
    first = page.locator("tbody tr td:first-child").first
    assert first.inner_text() == "code-review"
    head = page.get_by_role("button", name="Requests")
    head.focus()
    page.keyboard.press("Enter")
    page.locator("th[aria-sort=descending]", has_text="Requests").wait_for()
    page.wait_for_function(
        "() => document.querySelector('tbody tr td').innerText === 'search-rerank'"
    )
    page.get_by_label("Search agents").fill("night")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert first.inner_text() == "nightly-report"


def test_a_person_can_block_and_release_from_a_page(busy, browse) -> None:
    watched = browse(busy)
    watched.open(f"by/agent/{quote('nightly-report')}")
    page = watched.page
    page.get_by_role("button", name="Block").click()
    page.get_by_label("Why (for the audit trail and the refusal)").fill("a try")
    page.locator("dialog").get_by_role("button", name="Block").click()
    page.locator("main .badge", has_text="blocked").first.wait_for()
    assert call(busy, "nightly-report", [{"role": "user", "content": "hello"}]) == 429
    watched.open("now")
    page.get_by_role("button", name="Release agent nightly-report").click()
    page.locator("dialog").get_by_role("button", name="Release").click()
    page.get_by_text("Nobody is held back.").wait_for()
    assert call(busy, "nightly-report", [{"role": "user", "content": "hello"}]) == 200


def test_the_theme_is_kept(busy, browse) -> None:
    watched = browse(busy)
    watched.open("health")
    watched.page.get_by_role("button", name="Theme: auto").click()
    watched.page.get_by_role("button", name="Theme: light").click()
    watched.page.get_by_role("button", name="Theme: dark").wait_for()
    watched.page.reload()
    watched.page.wait_for_selector("main h1")
    assert watched.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_signing_out_leaves_nothing(busy, browse) -> None:
    watched = browse(busy)
    watched.page.get_by_role("button", name="Sign out").click()
    watched.page.get_by_label("Admin token").wait_for()
    assert watched.page.evaluate("fetch('/api/v1/session').then(r => r.json())") == {
        "signed_in": False,
        "oidc": False,
    }
    assert "tokenweir" not in json.dumps(watched.page.evaluate("document.cookie"))
