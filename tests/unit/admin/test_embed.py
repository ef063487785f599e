"""The widget: a signed link, one project, and nothing below its share."""

from __future__ import annotations

from pathlib import Path

import pytest

from detection.types import Observation
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings, AdminToken, EmbedSettings
from proxy.config import trial
from proxy.context import RequestContext
from proxy.gate import Gate
from proxy.gate_estimate import Rates
from proxy.store.settings import StoreSettings
from proxy.store.store import Store
from tests.unit.admin.conftest import Clock, at, bearer
from tests.unit.admin.past import CALLERS, Filler

VIEWER, TEAM = "viewer-token-0123456789", "team-token-0123456789"
BUDGET = "budgets: [{name: this-month, by: [project], amount_usd: 10, per: month}]"


def gate_with(clock, project: str, dollars: int) -> Gate:
    settings = trial(BUDGET)
    gate = Gate(
        clock=clock,
        rates=lambda *_: Rates(0, 0, call=1_000_000_000),
        budgets=settings.budgets,
    )
    for number in range(dollars):
        ctx = RequestContext(str(number), "openai", "openai", "openai", "chat", project=project)
        decision = gate.admit(ctx)
        assert decision.refusal is None
        gate.settle(decision, Observation(ts=clock(), id=ctx.id, cost_nano_usd=1_000_000_000))
    return gate


async def make_link(client, server, project: str, token: str | None = None) -> tuple[int, dict]:
    url = at(server, "/api/v1/embed-links")
    headers = bearer(token) if token else bearer()
    async with client.post(url, json={"project": project}, headers=headers) as answer:
        return answer.status, await answer.json()


async def show(client, server, path: str) -> tuple[int, str, dict]:
    async with client.get(at(server, path)) as answer:
        return answer.status, await answer.text(), dict(answer.headers)


async def test_it_shows_itself_from_its_share_on(start, client, clock: Clock) -> None:
    for dollars, state in ((4, "hidden"), (5, "shown"), (9, "shown")):
        server = await start(gate=gate_with(clock, "search", dollars))
        _, link = await make_link(client, server, "search")
        assert link["url"] == server.url + link["path"]
        status, page, _ = await show(client, server, link["path"])
        assert status == 200
        assert f'data-state="{state}"' in page
        assert (f"{dollars * 10}%" in page) is (state == "shown")
        assert ("this-month" in page) is (state == "shown")


async def test_another_project_s_spend_is_not_in_it(start, client, clock: Clock) -> None:
    server = await start(gate=gate_with(clock, "billing", 9))
    _, link = await make_link(client, server, "search")
    assert 'data-state="hidden"' in (await show(client, server, link["path"]))[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.replace("project=search", "project=billing"),
        lambda path: path[:-3] + ("AAA" if path[-3:] != "AAA" else "BBB"),
        lambda path: path.partition("&token")[0],
        lambda path: path.partition("?")[0],
    ],
)
async def test_a_changed_link_shows_nothing(start, client, clock: Clock, change) -> None:
    server = await start(gate=gate_with(clock, "search", 9))
    _, link = await make_link(client, server, "search")
    status, page, _ = await show(client, server, change(link["path"]))
    assert status == 403 and "%" not in page


async def test_a_link_ends_and_is_no_session(start, client, clock: Clock) -> None:
    server = await start(gate=gate_with(clock, "search", 9))
    _, link = await make_link(client, server, "search")
    token = link["path"].partition("token=")[2]
    headers = {"Cookie": f"tokenweir_session={token}"}
    async with client.get(at(server, "/api/v1/health"), headers=headers) as answer:
        assert answer.status == 401
    clock.now += 24 * 3600 + 1
    assert (await show(client, server, link["path"]))[0] == 403


async def test_who_may_make_links_and_who_may_frame(start, client, clock: Clock) -> None:
    tokens = (
        AdminToken(name="v", token=VIEWER),
        AdminToken(name="t", token=TEAM, role="operator", projects=("search",)),
    )
    embed = EmbedSettings(frame_ancestors=("https://app.example.com",))
    server = await start(AdminSettings(tokens=tokens, embed=embed), gate=None)
    assert (await make_link(client, server, "search", VIEWER))[0] == 403
    assert (await make_link(client, server, "billing", TEAM))[0] == 404
    status, link = await make_link(client, server, "search", TEAM)
    assert status == 201
    policy = (await show(client, server, link["path"]))[2]["Content-Security-Policy"]
    assert "frame-ancestors https://app.example.com" in policy
    assert "script-src" not in policy and "default-src 'none'" in policy
    server = await start()
    _, link = await make_link(client, server, "search")
    policy = (await show(client, server, link["path"]))[2]["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy


async def test_unusual_days_of_a_real_past(start, client, tmp_path: Path) -> None:
    store = await Store.open(StoreSettings(timeout_seconds=5.0), tmp_path / "store")
    try:
        filler = Filler(store)
        now = store.clock()
        caller = CALLERS[0]
        await filler.past(now, days=20, callers=[caller])
        server = await start(
            clock=store.clock,
            gate=gate_with(store.clock, caller.project, 9),
            reader=Reader(store.counters, store.clock),
        )
        _, link = await make_link(client, server, caller.project)
        _, page, _ = await show(client, server, link["path"])
        assert "Nothing unusual right now." in page and "Unusual days" not in page
        await filler.past(now - 3 * 86_400, days=1, callers=[caller] * 9)
        _, page, _ = await show(client, server, link["path"])
        assert "times the usual day" in page
        assert caller.key not in page and caller.agent not in page
    finally:
        await store.stop()
