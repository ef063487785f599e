"""Probes by component, and live updates that resume."""

from __future__ import annotations

import asyncio

from proxy.admin.health import Component, Health, State
from proxy.admin.settings import AdminSettings, AdminToken
from tests.unit.admin.conftest import at, bearer


async def test_a_store_away_is_degraded_and_ready(start, client) -> None:
    health = Health()
    health.add("store", lambda: Component(State.DEGRADED, "redis://:pw123456@h/0 refused", "wait"))
    server = await start(health=health)
    async with client.get(at(server, "/health/readiness")) as answer:
        assert answer.status == 200
        assert await answer.json() == {
            "status": "degraded",
            "components": {"store": {"status": "degraded"}},
        }
    async with client.get(at(server, "/api/v1/health"), headers=bearer()) as answer:
        text = await answer.text()
        assert "refused" in text and "pw123456" not in text


async def test_a_failed_component_or_draining_is_unready_but_alive(start, client) -> None:
    health = Health()
    health.add("gate", lambda: Component(State.FAILED, "no config"))
    health.add("odd", lambda: 1 / 0)
    server = await start(health=health)
    async with client.get(at(server, "/health/readiness")) as answer:
        assert answer.status == 503
        assert (await answer.json())["components"]["odd"] == {"status": "degraded"}
    health.add("gate", Component)
    async with client.get(at(server, "/health/readiness")) as answer:
        assert answer.status == 200
    health.draining = True
    async with client.get(at(server, "/health/readiness")) as answer:
        assert answer.status == 503
    async with client.get(at(server, "/health/liveness")) as answer:
        assert answer.status == 200


async def read_events(answer, count: int) -> list[tuple[int, str, str]]:
    found = []
    entry: dict[str, str] = {}
    while len(found) < count:
        line = (await asyncio.wait_for(answer.content.readline(), 5)).decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            entry[name] = value
        elif "event" in entry:
            found.append((int(entry["id"]), entry["event"], entry["data"]))
            entry = {}
        else:
            entry = {}
    return found


async def test_events_resume_where_they_broke_off(start, client) -> None:
    server = await start()
    hub = server._deps.hub
    async with client.get(at(server, "/api/v1/events"), headers=bearer()) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert await read_events(answer, 1) == [(0, "reset", "{}")]
        hub.publish("incident", {"n": 1})
        assert await read_events(answer, 1) == [(1, "incident", '{"n":1}')]
    hub.publish("incident", {"n": 2})
    hub.publish("action", {"n": 3})
    headers = {**bearer(), "Last-Event-ID": "1"}
    async with client.get(at(server, "/api/v1/events"), headers=headers) as answer:
        assert await read_events(answer, 2) == [
            (2, "incident", '{"n":2}'),
            (3, "action", '{"n":3}'),
        ]
    for number in range(400):
        hub.publish("tick", number)
    async with client.get(at(server, "/api/v1/events"), headers=headers) as answer:
        assert (await read_events(answer, 1))[0][1] == "reset"


async def test_a_project_scoped_viewer_sees_only_its_project(start, client) -> None:
    token = "scoped-token-0123456789"
    server = await start(
        AdminSettings(tokens=(AdminToken(name="p", token=token, projects=("checkout",)),))
    )
    hub = server._deps.hub
    async with client.get(at(server, "/api/v1/events"), headers=bearer(token)) as answer:
        await read_events(answer, 1)
        hub.publish("incident", "secret of all")
        hub.publish("incident", "other", project="search")
        hub.publish("incident", "mine", project="checkout")
        assert [data for _, _, data in await read_events(answer, 1)] == ['"mine"']


async def test_a_slow_reader_is_dropped_not_waited_for(start, client) -> None:
    server = await start()
    hub = server._deps.hub
    async with client.get(at(server, "/api/v1/events"), headers=bearer()) as answer:
        await read_events(answer, 1)
        assert hub.watched
        for _ in range(2000):
            hub.publish("tick", "x" * 2000)
        assert not hub.watched
        await answer.content.read()  # the stream ends; the browser reconnects


async def test_stopping_ends_the_streams(start, client) -> None:
    server = await start()
    async with client.get(at(server, "/api/v1/events"), headers=bearer()) as answer:
        await read_events(answer, 1)
        await asyncio.wait_for(server.stop(), 5)
        assert await answer.content.read() == b""
