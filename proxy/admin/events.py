"""Live updates for the dashboard: server-sent events with ids, resumable.

Owns: the ring of recent events and the subscribers. Must never: wait for a
slow subscriber, grow without bound, or send a project's event to someone who
may not see it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from proxy.admin.principal import Principal, principal_of

_KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Event:
    """One update. ``project`` of ``None`` is for those who may see everything."""

    number: int
    kind: str
    data: bytes
    project: str | None

    def frame(self) -> bytes:
        """As it goes over the wire."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.number, self.kind.encode(), self.data)


class EventHub:
    """Publishes to every open dashboard.

    Parameters
    ----------
    keep
        Events kept for those who reconnect with ``Last-Event-ID``.
    most_subscribers
        More are refused, so that open dashboards can't exhaust the process.
    """

    def __init__(self, keep: int = 256, most_subscribers: int = 64) -> None:
        self._recent: deque[Event] = deque(maxlen=keep)
        self._subscribers: dict[asyncio.Queue[Event | None], Principal] = {}
        self._most = most_subscribers
        self._number = 0
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether anyone listens: what is only for the eye need not be made else."""
        return bool(self._subscribers)

    @property
    def count(self) -> int:
        """How many dashboards are open."""
        return len(self._subscribers)

    def publish(self, kind: str, data: Any, project: str | None = None) -> None:
        """Send ``data`` (JSON) to everyone who may see it; never waits.

        A subscriber that does not keep up is dropped and reconnects by itself.
        """
        self._number += 1
        event = Event(
            self._number, kind, orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS), project
        )
        self._recent.append(event)
        for queue, principal in list(self._subscribers.items()):
            if not principal.allows_project(project):
                continue
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._drop(queue)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for queue in list(self._subscribers):
            self._drop(queue)

    def _drop(self, queue: asyncio.Queue[Event | None]) -> None:
        self._subscribers.pop(queue, None)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    def missed(self, last: int) -> list[Event] | None:
        """Events after number ``last``, or ``None`` where some are gone."""
        if last > self._number or (self._recent and last < self._recent[0].number - 1):
            return None
        return [event for event in self._recent if event.number > last]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /api/v1/events``."""
        principal = principal_of(request)
        if len(self._subscribers) >= self._most or self._closed:
            raise web.HTTPServiceUnavailable(
                text="too many live views are open", headers={"Retry-After": "10"}
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        queue: asyncio.Queue[Event | None] = asyncio.Queue(maxsize=128)
        start = self._resume(request.headers.get("Last-Event-ID", ""), principal)
        self._subscribers[queue] = principal
        try:
            await response.prepare(request)
            await response.write(start)
            await self._pump(queue, response)
        except ConnectionError:
            return response
        finally:
            self._subscribers.pop(queue, None)
        return response

    def _resume(self, last_id: str, principal: Principal) -> bytes:
        """What comes first: what was missed, or the word to load everything anew."""
        missed = self.missed(int(last_id)) if last_id.isascii() and last_id.isdigit() else None
        if missed is None:
            return b"retry: 2000\nid: %d\nevent: reset\ndata: {}\n\n" % self._number
        frames = [e.frame() for e in missed if principal.allows_project(e.project)]
        return b"retry: 2000\n\n" + b"".join(frames)

    async def _pump(self, queue: asyncio.Queue[Event | None], response: web.StreamResponse) -> None:
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_SECONDS)
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            if event is None:
                return
            await response.write(event.frame())


OPENAPI_PATHS: dict[str, Any] = {
    "/api/v1/events": {
        "get": {
            "summary": "What happens, as it happens: server-sent events",
            "description": "Kinds are `incident`, `action`, `tick`, `config` and `reset` (load "
            "everything anew). `Last-Event-ID` resumes.",
            "responses": {
                "200": {
                    "description": "The stream",
                    "content": {"text/event-stream": {"schema": {"type": "string"}}},
                },
                "503": {"$ref": "#/components/responses/Error"},
            },
        }
    },
}
