"""A real proxy with a past, a local provider, and Debian's Chromium in front of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.engine_file import rewrite
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.conftest import Recorder
from tests.rig import ROOT, Proxy, Upstream, running_proxy
from tests.unit.admin.past import Filler, learned

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

CHROMIUM = next((p for n in ("chromium", "google-chrome") if (p := shutil.which(n))), None)
PAST_DAYS = 15
#: So that there is a month to compare this one with, and a normal and a record of each.
TWO_MONTHS_DAYS = 62
LEARNED_DAYS = 16
IMAGES = ROOT / "docs" / "images"

#: A busy machine's store is slow to answer; that is not what these tests are about.
PATIENT = {"timeout_seconds": 5, "query_timeout_seconds": 30}
SETTINGS = {
    "store": PATIENT,
    "limits": [],
    "budgets": [
        {"name": "company", "amount_usd": 100, "per": "month"},
    ],
}


def fill(proxy: Proxy, days: int = PAST_DAYS) -> None:
    """Give the proxy's own store a past, through the store's own door."""

    async def work() -> None:
        settings = StoreSettings(timeout_seconds=5.0)
        store = await Store.open(settings, proxy.data_dir, worker="past")
        try:
            await Filler(store).past(store.clock(), days)
        finally:
            await store.stop()

    # Playwright keeps a loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work()).result(120)


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
            env={**os.environ, "LANG": "en_US.UTF-8"},
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The axe-core script; fetched once with npm, or a skip that says so."""
    cached = ROOT / ".cache" / "axe.min.js"
    if not cached.is_file():
        npm = shutil.which("npm")
        folder = tmp_path_factory.mktemp("axe")
        done = npm and subprocess.run(
            [npm, "pack", "--silent", "axe-core@4.14.1"],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        packed = next(folder.glob("*.tgz"), None)
        if not done or packed is None:
            pytest.skip("axe-core can't be fetched with npm here")
        with tarfile.open(packed) as archive:
            member = archive.extractfile("package/axe.min.js")
            assert member is not None
            cached.parent.mkdir(exist_ok=True)
            cached.write_bytes(member.read())
    return cached.read_text()


class Watched:
    """A page of the browser, and everything that must not happen in it."""

    def __init__(self, context, base: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.base = base
        self.faults: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request) -> None:
        if not request.url.startswith((self.base + "/", "data:", "blob:")):
            self.faults.append(f"external request: {request.url}")

    def open(self, path: str) -> None:
        """Go to a page of the dashboard and wait until nothing loads any more."""
        self.page.goto(f"{self.base}/#/{path}")
        self.page.wait_for_selector("main h1")
        self.page.wait_for_function("() => !document.querySelector('.state[data-kind=loading]')")
        self.page.wait_for_timeout(150)


@pytest.fixture
def browse(chromium) -> Iterator[Callable[..., Watched]]:
    """Open pages in fresh profiles; a fault in any fails the test."""
    opened: list[Watched] = []
    contexts = []

    def run(proxy: Proxy, *, width: int = 1400, theme: str = "light", link: str = "") -> Watched:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, locale="en-GB"
        )
        contexts.append(context)
        watched = Watched(context, proxy.admin)
        watched.page.goto(link or sign_in_link(proxy))
        watched.page.wait_for_selector("main h1")
        opened.append(watched)
        return watched

    yield run
    for context in contexts:
        context.close()
    assert [fault for watched in opened for fault in watched.faults] == []


def sign_in_link(proxy: Proxy) -> str:
    """A link like the one printed at the start, from the API."""
    link = proxy.api("/api/v1/sign-in-links", "POST", {})["link"]
    assert isinstance(link, str)
    return link


def printed_link(proxy: Proxy) -> str:
    """The link that ``serve`` printed."""
    for line in proxy.log.read_text().splitlines():
        for word in line.split():
            if "/signin?code=" in word:
                return word
    raise AssertionError(proxy.log.read_text())


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def quiet(recorder: Recorder, tmp_path_factory) -> Iterator[Proxy]:
    """A proxy that nobody has called yet."""
    with Upstream(recorder) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}, **SETTINGS}
        with running_proxy(tmp_path_factory.mktemp("quiet"), settings) as proxy:
            yield proxy


@pytest.fixture(scope="module")
def busy(recorder: Recorder, tmp_path_factory) -> Iterator[Proxy]:
    """A proxy with a past and calls of the last minutes."""
    with Upstream(recorder) as upstream:
        settings = {"upstreams": {"openai": {"base_url": upstream.url}}, **SETTINGS}
        with running_proxy(tmp_path_factory.mktemp("busy"), settings) as proxy:
            fill(proxy)
            yield proxy


@pytest.fixture(scope="module")
def troubled(recorder: Recorder, tmp_path_factory) -> Iterator[Proxy]:
    """A proxy with a past, a looping agent, a budget, and a limit in shadow mode."""
    settings = {
        "store": PATIENT,
        "budgets": [
            {"name": "company", "amount_usd": 400, "per": "month"},
            {"name": "agents", "amount_usd": 0.0002, "per": "day", "by": ["agent"], "hard": False},
        ],
        "limits": [
            {"name": "agent-pace", "requests": 20, "per": "minute", "by": ["agent"],
             "mode": "shadow"},
        ],
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("troubled")
    data = folder / "data"
    data.mkdir()
    rewrite(learned(time.time(), LEARNED_DAYS), data / "engine-0.json")
    with Upstream(recorder) as upstream:
        settings["upstreams"] = {"openai": {"base_url": upstream.url}}
        with running_proxy(folder, settings) as proxy:
            fill(proxy, TWO_MONTHS_DAYS)
            for number in range(30):
                call(proxy, "invoice-parser", [{"role": "user", "content": f"invoice {number}"}])
            assert 429 in loop(proxy, "support-triage")
            silence = {"matchers": ['agent="nightly-report"'], "seconds": 3600}
            proxy.api("/api/v1/silences", "POST", {**silence, "comment": "month-end run"})
            time.sleep(25)  # until the running minute is drawn
            yield proxy


def refusal(proxy: Proxy, agent: str, messages: list[dict]) -> dict:
    """What a refused call of an agent is told."""
    error = answer_of(proxy, agent, messages)
    assert isinstance(error, urllib.error.HTTPError), "the call passed"
    return json.loads(error.read())["error"]["tokenweir"]


def call(proxy: Proxy, agent: str, messages: list[dict], key: str = "sk-test-0123456789") -> int:
    """One chat call of an agent; its status."""
    found = answer_of(proxy, agent, messages, key)
    return int(found.code if isinstance(found, urllib.error.HTTPError) else found.status)


def answer_of(proxy: Proxy, agent: str, messages: list[dict], key: str = "sk-test-0123456789"):
    """One chat call's answer, or its error."""
    request = urllib.request.Request(
        f"{proxy.url}/@{agent}/v1/chat/completions",
        data=json.dumps({"model": "gpt-4o-mini", "messages": messages}).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer
    except urllib.error.HTTPError as error:
        return error


def loop(proxy: Proxy, agent: str, calls: int = 150, pause: float = 0.01) -> list[int]:
    """The same tool call with the same result, again and again; the statuses."""
    messages = [
        {"role": "user", "content": "refund order 1742"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "find_order", "arguments": '{"id": 1742}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"error": "not found"}'},
    ]
    found = []
    for _ in range(calls):
        found.append(call(proxy, agent, messages))
        time.sleep(pause)
        if found[-3:] == [429, 429, 429] and len(found) > 60:
            break
    return found
