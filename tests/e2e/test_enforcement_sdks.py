"""What the official SDKs make of a throttle, of a block and of a stream that is cut."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.e2e.families import FAMILIES, Families, upstreams
from tests.rig import Proxy, Upstream, running_proxy, wait_for

WHY = "it calls the same tool again and again"
CASES = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def families() -> Families:
    return Families()


@pytest.fixture(scope="module")
def between(families: Families, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Upstream(families) as upstream:
        settings = {"upstreams": upstreams(upstream.url), "mode": "observe"}
        with running_proxy(tmp_path_factory.mktemp("sdks"), settings) as proxy:
            yield proxy


def act(proxy: Proxy, kind: str, agent: str, **more: Any) -> None:
    """Take an action by hand."""
    asked = {"kind": kind, "dimension": "agent", "value": agent, "reason": WHY, **more}
    proxy.api("/api/v1/actions", "POST", asked)


def calls(proxy: Proxy, agent: str) -> list[dict[str, Any]]:
    """The journal's rows of an agent."""
    return [row for row in proxy.journal() if row["agent"] == agent]


@CASES
def test_a_throttle_is_a_rate_limit_with_a_sane_wait(between: Proxy, name: str) -> None:
    family, agent = FAMILIES[name], f"throttled-{name}"
    act(between, "throttle", agent, rate_per_second=1.0)
    began = time.monotonic()
    if family.waits:
        for _ in range(3):
            family.ask(between.url, agent)
        assert 1.0 < time.monotonic() - began < 60
        return
    with pytest.raises(family.limited) as caught:
        for _ in range(100):
            family.ask(between.url, agent)
    assert f"slows agent {agent} to 1 calls a second" in str(caught.value)
    assert WHY in str(caught.value)
    assert _status(caught.value) == 429


@pytest.mark.parametrize(
    "name",
    [
        "openai-chat",
        pytest.param("openai-responses", marks=pytest.mark.slow),
        pytest.param("anthropic", marks=pytest.mark.slow),
    ],
)
def test_a_throttle_that_stays_is_raised_after_the_sdks_own_tries(
    between: Proxy, name: str
) -> None:
    family, agent = FAMILIES[name], f"held-{name}"
    act(between, "throttle", agent, rate_per_second=0.5)
    stop = threading.Event()
    # Others of the same agent take what the throttle lets through.
    taker = threading.Thread(target=asyncio.run, args=(_take(between, agent, stop),))
    taker.start()
    try:
        with pytest.raises(family.limited) as caught:
            for _ in range(20):
                family.ask(between.url, agent)
    finally:
        stop.set()
        taker.join(30)
    assert "slows agent" in str(caught.value)
    assert _status(caught.value) == 429


async def _take(proxy: Proxy, agent: str, stop: threading.Event) -> None:
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            url = f"{proxy.url}/@{agent}/v1/chat/completions"
            async with session.post(url, json={"model": "m", "messages": []}) as answer:
                await answer.read()


def _status(error: Any) -> int:
    for attribute in ("status_code", "code"):
        if isinstance(getattr(error, attribute, None), int):
            return int(getattr(error, attribute))
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@CASES
def test_a_block_is_one_request_and_says_what_to_do(between: Proxy, name: str) -> None:
    family, agent = FAMILIES[name], f"blocked-{name}"
    act(between, "block", agent, seconds=600)
    with pytest.raises(family.stopped) as caught:
        family.ask(between.url, agent)
    text = str(caught.value)
    assert f"Tokenweir blocked agent {agent} until" in text
    assert WHY in text
    assert _status(caught.value) in (429, 400)
    wait_for(lambda: calls(between, agent), what="the refusal in the journal")
    rows = calls(between, agent)
    assert len(rows) == 1, "the SDK tried a block again"
    assert rows[0]["action"] == "block"
    assert len(rows[0]["fingerprint"]) == 16, "a loop of refused calls must be seen as one"


@CASES
def test_a_cut_stream_is_an_exception_and_never_a_silent_end(
    between: Proxy, families: Families, name: str
) -> None:
    family, agent = FAMILIES[name], f"cut-{name}"
    lost, pieces = families.cut, 0
    began = 0.0
    with pytest.raises(family.broken) as caught:
        for _ in family.stream(between.url, agent):
            pieces += 1
            if pieces == 5:
                act(between, "block", agent, seconds=600)
                began = time.monotonic()
    assert time.monotonic() - began < 10
    assert pieces >= 5
    assert f"Tokenweir blocked agent {agent}" in _all_words(caught.value)
    wait_for(lambda: families.cut > lost, 20, "the upstream's stream to end")
    (row,) = wait_for(lambda: calls(between, agent), what="the cut call in the journal")
    assert row["error_type"] == "cut"


def _all_words(error: BaseException) -> str:
    parts = [str(error), str(getattr(error, "body", ""))]
    cause = error.__cause__ or error.__context__
    return " ".join(parts) + (_all_words(cause) if cause is not None else "")
