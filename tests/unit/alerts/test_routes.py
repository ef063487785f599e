"""The incident and billing API on a real admin server over a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from detection.types import Observation, Series
from proxy.admin.app import AdminServer
from proxy.admin.deps import AdminDeps
from proxy.admin.reader import Reader
from proxy.admin.settings import AdminSettings
from proxy.alerts.service import AlertService
from proxy.alerts.settings import AlertsSettings
from proxy.incidents import BookRules, IncidentBook
from proxy.journal import Journal
from proxy.ledger import Ledger
from proxy.store.store import Store
from tests.unit.alerts.rig import verdict
from tests.unit.alerts.test_book import until

TOKEN = "an-admin-token-of-the-tests-0001"
SCOPED = "a-scoped-token-of-the-tests-0002"


@dataclass
class Rig:
    """A server, its parts and a client."""

    url: str
    store: Store
    book: IncidentBook
    client: aiohttp.ClientSession
    now: float

    async def ask(
        self, path: str, token: str = TOKEN, method: str = "GET", **more: Any
    ) -> tuple[int, Any]:
        """Status and JSON."""
        headers = {"Authorization": f"Bearer {token}"}
        async with self.client.request(
            method, self.url + path, headers=headers, **more
        ) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def rig(store: Store, tmp_path: Path) -> AsyncIterator[Rig]:
    book = IncidentBook(store.documents, store.clock, rules=BookRules(poll=0.05))
    alerts = AlertService(AlertsSettings(), store.documents, store.clock)
    deps = AdminDeps(
        settings=AdminSettings.model_validate(
            {
                "tokens": [
                    {"name": "web team", "token": SCOPED, "role": "operator", "projects": ["web"]}
                ]
            }
        ),
        data_dir=tmp_path,
        clock=store.clock,
        version="0.0.0",
        scrape=_nothing,
        mode=lambda: "enforce",
        data_url=lambda: "http://127.0.0.1:8787",
        reader=Reader(store.counters, store.clock),
        environ={"TOKENWEIR_ADMIN_TOKEN": TOKEN},
        store=store,
        incidents=book,
        alerts=alerts,
    )
    server = AdminServer(deps, "127.0.0.1", 0)
    await server.start()
    task = asyncio.create_task(book.run())
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield Rig(server.url.rstrip("/"), store, book, client, time.time())
    task.cancel()
    await server.stop()


async def _nothing() -> str:
    return ""


async def opened(rig: Rig, series: Series) -> str:
    """Open an incident; its id."""
    rig.book.on_verdict(verdict(series=series, ts=rig.now))
    fingerprints = [f"loop:{series.dimension}:{series.value}"]
    await until(lambda: fingerprints[0] in [i.fingerprint for i in rig.book.known_active()])
    return next(i.id for i in rig.book.known_active() if i.fingerprint == fingerprints[0])


async def test_incidents_are_listed_taken_in_hand_and_closed(rig: Rig) -> None:
    first = await opened(rig, Series("project", "web"))
    await opened(rig, Series("project", "api"))
    status, body = await rig.ask("/api/v1/incidents?q=WEB")
    assert status == 200
    assert [i["id"] for i in body["incidents"]] == [first]
    path = f"/api/v1/incidents/{first}"
    status, body = await rig.ask(f"{path}/acknowledge", method="POST", json={"note": "mine"})
    assert (status, body["state"]) == (200, "acknowledged")
    status, body = await rig.ask(
        f"{path}/resolve", method="POST", json={"resolution": "stopped", "root_cause": "retry"}
    )
    assert (status, body["root_cause"]) == (200, "retry")
    assert (await rig.ask(f"{path}/dismiss", method="POST"))[0] == 409
    _, body = await rig.ask("/api/v1/incidents?state=closed")
    assert [i["id"] for i in body["incidents"]] == [first]
    assert (await rig.ask(f"{path}/resolve", method="POST", data=b"{"))[0] == 400
    assert (await rig.ask("/api/v1/incidents?state=odd"))[0] == 400


async def test_a_scoped_token_learns_nothing_of_other_projects(rig: Rig) -> None:
    mine = await opened(rig, Series("project", "web"))
    others = await opened(rig, Series("project", "api"))
    total = await opened(rig, Series("total", ""))
    _, body = await rig.ask("/api/v1/incidents?state=all", SCOPED)
    assert [i["id"] for i in body["incidents"]] == [mine]
    absent = await rig.ask("/api/v1/incidents/inc_000000000000", SCOPED)
    assert absent[0] == 404
    for hidden in (others, total):
        assert await rig.ask(f"/api/v1/incidents/{hidden}", SCOPED) == absent
        assert (await rig.ask(f"/api/v1/incidents/{hidden}/dismiss", SCOPED, "POST"))[0] == 404
    for path in (
        "/billing/anomalies?project=api",
        "/billing/anomalies/trends?project=api",
        "/api/v1/forecast?project=api",
        "/api/v1/forecast?dimension=key&value=key_1",
        "/api/v1/outbox",
    ):
        assert await rig.ask(path, SCOPED) == absent, path
    body = {"matchers": ['tier="info"'], "project": "api"}
    assert (await rig.ask("/api/v1/silences", SCOPED, "POST", json=body))[0] == 404
    status, made = await rig.ask("/api/v1/silences", SCOPED, "POST", json={"matchers": ["tier=x"]})
    assert (status, made["project"]) == (201, "web")
    _, body = await rig.ask("/api/v1/silences", SCOPED)
    assert [s["id"] for s in body["silences"]] == [made["id"]]
    status, _ = await rig.ask(f"/api/v1/silences/{made['id']}", SCOPED, "DELETE")
    assert status == 200
    assert (await rig.ask(f"/api/v1/maintenance/{made['id']}", method="DELETE"))[0] == 404


async def test_bad_silences_are_explained(rig: Rig) -> None:
    for body in (
        {"matchers": []},
        {"matchers": ["tier"]},
        {"matchers": ["nosuch=x"]},
        {"matchers": ['scope=~"(a+)+"']},
        {"matchers": ["tier=x"], "seconds": -1},
        {"matchers": "tier=x"},
    ):
        status, told = await rig.ask("/api/v1/silences", method="POST", json=body)
        assert status == 400, body
        assert told["error"]["message"]


async def filled(rig: Rig, folder: Path, costs: list[float], project: str) -> None:
    """Days of spend, ending today, counted by the real ledger."""
    clock = rig.store.clock
    journal = Journal(folder / f"journal-{project}", clock=clock, monotonic=clock.monotonic)
    ledger = Ledger(journal, rig.store.counters, clock)
    today = rig.now // 86_400 * 86_400
    for back, usd in enumerate(reversed(costs)):
        if usd:
            ledger.record(
                Observation(
                    ts=today - back * 86_400 + 1, id=f"{project}-{back}", project=project,
                    model="gpt", status=200, input_tokens=900, output_tokens=100,
                    cost_nano_usd=round(usd * 1e9), action="allow",
                )
            )  # fmt: skip
    assert await ledger.flush(5.0)
    journal.close()


async def test_billing_anomalies(rig: Rig, tmp_path: Path) -> None:
    status, body = await rig.ask("/billing/anomalies")
    assert status == 200
    assert body["error"] == "insufficient_data"
    assert body["anomalies"] == []
    await filled(rig, tmp_path, [1.0] * 20 + [6.0] + [1.0] * 4, "web")
    await filled(rig, tmp_path, [100.0] * 25, "api")
    status, body = await rig.ask("/billing/anomalies?days=30&sensitivity=medium&project=web")
    assert status == 200
    assert "error" not in body
    assert (body["days_with_data"], body["total_days_analyzed"]) == (25, 30)
    assert (body["sensitivity"], body["sigma_level"]) == ("medium", 3.0)
    assert body["avg_daily_usage"] == 1.2
    (found,) = body["anomalies"]
    assert found["severity"] == "high"
    assert found["spike_ratio"] == 5.0
    assert (found["total_cost_usd"], found["total_tokens"], found["llm_calls"]) == (6.0, 1_000, 1)
    assert found["expected_range"]["max"] == body["threshold"]
    assert found["std_deviations"] > 3
    assert (await rig.ask("/billing/anomalies", SCOPED))[1]["avg_daily_usage"] == 1.2
    assert (await rig.ask("/billing/anomalies"))[1]["avg_daily_usage"] == 101.2
    for bad in ("days=6", "days=91", "days=x", "sensitivity=huge", "sensitivity=9"):
        assert (await rig.ask(f"/billing/anomalies?{bad}"))[0] == 400
    status, body = await rig.ask("/billing/anomalies/trends?days=25", SCOPED)
    assert (status, body["days_analyzed"], len(body["daily_usage"])) == (200, 25, 25)
    assert body["trend_percent"] == 41.67
    status, body = await rig.ask("/api/v1/forecast?budget_usd=5", SCOPED)
    assert (status, body["state"]) == (200, "ready")
    assert body["forecast"]["low"] <= body["forecast"]["expected"] <= body["forecast"]["high"]
