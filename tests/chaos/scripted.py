"""An upstream that misbehaves when asked to, and notes every call that reached it.

Owns: the table of behaviours by the name that a request's ``x-do`` field gives.
Must never: answer before the call is noted.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from tests.conftest import stream_of
from tests.rig import Received, chat_answer, json_answer, read_request

Behaviour = Callable[[Received, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool | None]]
_BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(name: str) -> Callable[[Behaviour], Behaviour]:
    """Register how an upstream answers ``x-do: name``; true keeps the connection."""

    def register(function: Behaviour) -> Behaviour:
        _BEHAVIOURS[name] = function
        return function

    return register


def event_stream(events: list[object], *, done: bool = True) -> bytes:
    """Server-sent events of JSON objects, in OpenAI's way."""
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; empty data ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Script:
    """The upstream's side of every connection."""

    def __init__(self, try_header: str) -> None:
        self._try_header = try_header
        self.arrived: list[str] = []
        self.unnamed = 0
        self.requests: list[Received] = []
        self.gone: list[tuple[str, float]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            name = request.header(self._try_header)
            if name is not None:
                self.arrived.append(name)
            else:
                self.unnamed += 1
            self.requests.append(request)
            del self.requests[:-200]
            act = _BEHAVIOURS.get(request.header("x-do") or "")
            if act is not None:
                if not await act(request, reader, writer):
                    return
            elif b'"stream":true' in request.body.replace(b" ", b""):
                writer.write(stream_of(request))
            else:
                writer.write(json_answer(chat_answer()))
            await writer.drain()

    def last(self) -> Received:
        """The newest request that reached the upstream and is no bystander's."""
        return next(
            r for r in reversed(self.requests) if "-by" not in (r.header(self._try_header) or "")
        )
