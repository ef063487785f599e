"""A lab with somebody to tell: HTTP receivers that note what is posted to them.

Owns: the receivers' servers and a limit whose refusal opens an incident. Must
never: answer a post before it is noted.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.chaos.lab import Lab
from tests.rig import Received, Upstream, json_answer, read_request, wait_for

LOOPBACK = "127.0.0.1/32"


class Receiver:
    """An HTTP endpoint; ``answers`` says what each path is told."""

    def __init__(self) -> None:
        self.posts: list[Received] = []
        self.answers: dict[str, bytes] = {}
        self.sent: dict[str, int] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            self.posts.append(request)
            path = request.line.split(" ")[1]
            if path == "/endless":
                await self._endless(path, writer)
                return
            writer.write(self.answers.get(path, json_answer({"ok": True})))
            await writer.drain()

    async def _endless(self, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            await writer.drain()
            self.sent[path] = self.sent.get(path, 0) + 65_536

    def to(self, path: str) -> list[Received]:
        """What was posted to a path."""
        return [r for r in self.posts if r.line.split(" ")[1] == path]


class ReceiverLab(Lab):
    """A lab whose limit ``loud`` refuses an agent's second call and opens an incident."""

    def __init__(
        self, folder: Path, receivers: list[dict[str, Any]], *, allow: tuple[str, ...] = (LOOPBACK,)
    ) -> None:
        self.receiver = Receiver()
        self.server = Upstream(self.receiver)
        self.server.__enter__()
        for receiver in receivers:
            for name, value in receiver.items():
                if isinstance(value, str):
                    receiver[name] = value.replace("PORT", str(self.server.port))
        routes = [{"receiver": r["name"], "continue": True} for r in receivers]
        alerts = {
            "receivers": receivers,
            "route": {"receiver": receivers[0]["name"], "routes": routes, "group_wait_seconds": 0},
            "allow_addresses": list(allow),
            "follow_redirects": True,
            "outbox": {
                "attempts": 3,
                "first_wait_seconds": 0.1,
                "longest_wait_seconds": 0.2,
                "timeout_seconds": 2,
            },
        }
        loud = {"name": "loud", "by": ["agent"], "requests": 1, "per": "hour"}
        loud |= {"match": {"agent": ["loud*", "<*"]}, "tier": "critical"}
        super().__init__(folder, {"alerts": alerts, "limits": [loud]})
        self.defer(self.server.__exit__)

    def open_incident(self, agent: str, **request: Any) -> None:
        """Have the limit refuse an agent."""
        for _ in range(2):
            status = self.call(headers={"X-Tokenweir-Agent": agent}, **request).status
        assert status == 429

        def there() -> bool:
            found = self.proxy.api("/api/v1/incidents")["incidents"]
            return any(agent in str(incident) for incident in found)

        wait_for(there, 20, f"an incident of {agent}")

    def letters(self, state: str) -> list[dict[str, Any]]:
        """The outbox's messages of a state."""
        found: list[dict[str, Any]] = self.proxy.api("/api/v1/outbox")[state]
        return found
