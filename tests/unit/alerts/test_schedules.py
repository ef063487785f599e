"""Digests and reports go out once when they are due; new settings hold from the next look."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

from detection.types import Series, Tier
from proxy.alerts.service import AlertService
from proxy.alerts.settings import AlertsSettings
from proxy.incidents import IncidentBook
from proxy.reports import scheduled
from proxy.store.documents import Documents
from proxy.store.store import Store
from tests.unit.alerts.rig import Endpoint, endpoint, verdict
from tests.unit.alerts.test_service import fired, settings, webhook

HOUR = 3_600.0
#: A Sunday, late.
SUNDAY = datetime(2027, 1, 31, 22, tzinfo=UTC).timestamp()


class Clock:
    """Epoch seconds that a test moves."""

    now = SUNDAY

    def __call__(self) -> float:
        return self.now


def service(
    store: Store, alerts: AlertsSettings, clock: Clock
) -> tuple[IncidentBook, AlertService]:
    documents = Documents(store.link, store.settings)
    book = IncidentBook(documents, clock)
    made = AlertService(
        alerts, documents, clock, make_report=scheduled(store.counters, book.store, clock)
    )
    book.subscribe(made.notify)
    return book, made


async def an_hour_at_a_time(one: AlertService, clock: Clock, hours: int) -> None:
    for _ in range(hours):
        clock.now += HOUR - 1
        await one.plan_once()
        clock.now += 1
        await one.plan_once()
        while await one.deliver_once() == 0:
            pass


def sent(here: Endpoint, kind: str) -> list[dict[str, object]]:
    return [body for body in fired(here) if body["type"] == kind]


async def test_a_months_report_and_a_weeks_digest_go_once_over_a_restart(store: Store) -> None:
    clock = Clock()
    async with endpoint() as here:
        alerts = settings(
            [webhook(here)],
            {"receiver": "hook"},
            digests=[{"every": "week", "weekday": "mon", "at": "08:00", "receiver": "hook"}],
            reports=[{"every": "month", "at": "07:00", "receiver": "hook", "format": "json"}],
        )
        book, first = service(store, alerts, clock)
        await first.plan_once()
        book.on_verdict(verdict(tier=Tier.INFO, series=Series("agent", "quiet"), ts=clock.now))
        await book.turn()
        await an_hour_at_a_time(first, clock, 8)
        assert (len(sent(here, "report")), len(sent(here, "digest"))) == (0, 0)
        await an_hour_at_a_time(first, clock, 1)
        assert (len(sent(here, "report")), len(sent(here, "digest"))) == (1, 0)
        await first.stop()
        await asyncio.sleep(0.05)  # the lease ends
        _, second = service(store, alerts, clock)
        await an_hour_at_a_time(second, clock, 30)
        assert (len(sent(here, "report")), len(sent(here, "digest"))) == (1, 1)
        await second.stop()
    (report,), (digest,) = sent(here, "report"), sent(here, "digest")
    body = json.loads(base64.b64decode(report["attachment"]["base64"]))  # type: ignore[index]
    january = datetime(2027, 1, 1, tzinfo=UTC)
    assert body["start"] == january.timestamp()
    assert body["end"] == (january + timedelta(days=31)).timestamp()
    assert body["anomalies"]["incidents"] == 1
    assert [one["agentId"] for one in digest["incidents"]] == ["quiet"]  # type: ignore[attr-defined]


async def test_new_settings_hold_and_nothing_is_told_twice(store: Store) -> None:
    clock = Clock()
    async with endpoint() as here:
        book, one = service(store, settings([webhook(here)], {"receiver": "hook"}), clock)
        await one.plan_once()
        book.on_verdict(verdict(ts=clock.now))
        await book.turn()
        await an_hour_at_a_time(one, clock, 1)
        assert len(fired(here)) == 1
        both = [webhook(here), webhook(here, "other")]
        routes = [{"receiver": "other", "continue": True}, {"receiver": "hook"}]
        one.configure(settings(both, {"receiver": "hook", "routes": routes}))
        await an_hour_at_a_time(one, clock, 1)
        assert len(fired(here)) == 1
        assert [body["status"] for body in fired(here, "other")] == ["open"]
        one.configure(settings(both, {"receiver": "hook"}, enabled=False))
        await an_hour_at_a_time(one, clock, 12)
        assert not one.leading
        assert len(fired(here)) == 1
        await one.stop()
