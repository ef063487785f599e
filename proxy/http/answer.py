"""The answer's side of the pump: how it is framed for this client, and read as it passes.

Owns: the answer's head and framing towards the client, and the parser that reads
usage from it. Must never: change a byte of the body but for the usage chunk that
the proxy itself asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.http.framing import BODILESS
from proxy.http.headers import Scanned, without
from proxy.http.request import Request
from proxy.providers import UsageChunkFilter, response_parser, stream_error
from proxy.providers.base import Refusal, StreamFilter, UsageParser

_SHORT_BYTES = 65_536


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1); nothing for no data."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Answer:
    """One answer on its way to one client."""

    __slots__ = (
        "_chunked",
        "_filter",
        "_head",
        "_kept",
        "_lines",
        "_names",
        "_request",
        "close_delimited",
        "closes",
        "headers",
        "parser",
        "status",
    )

    def __init__(self, request: Request, status: int, headers: Scanned) -> None:
        self.status = status
        self.headers, self._names, self._lines = headers
        self.close_delimited = self.closes = False
        self._request = request
        self._chunked = False
        self._filter: StreamFilter | None = None
        self._head = self._kept = b""
        #: Reads the body's pieces for their usage.
        self.parser: UsageParser = response_parser(
            request.template.endpoint, request.facts, status, self.headers
        )

    def begin(self, reason: bytes, extra: Sequence[tuple[str, str]], *, close: bool) -> None:
        """Write the head. It goes out with the first data."""
        request, passed = self._request, self._lines
        framed = "content-length" in self.headers
        if request.asked_for_usage and self._is_sse:
            self._filter = UsageChunkFilter()
            passed = without(self._names, passed, ("content-length",))[1]
            framed = False
        lines = [b"HTTP/1.1 %d %b" % (self.status, reason), *passed]
        if not framed and request.head.method != "HEAD" and self.status not in BODILESS:
            if request.head.minor_version:
                lines.append(b"Transfer-Encoding: chunked")
                self._chunked = True
            else:
                self.close_delimited = True
        for name, value in extra:
            lines.append(f"{name}: {value}".encode("latin-1", "replace"))
        if close or self.close_delimited:
            self.closes = True
            lines.append(b"Connection: close")
        lines.append(b"\r\n")
        self._head = b"\r\n".join(lines)

    def add(self, name: str, value: str) -> None:
        """A field more, while the head is not out."""
        self._head = b"%b%b: %b\r\n\r\n" % (self._head[:-2], name.encode(), value.encode())

    def keep(self, data: bytes) -> bool:
        """Keep back a piece of a short answer, so that its head can tell what it cost.

        Nothing of a stream, whoever asked for it (Ollama streams unasked, as NDJSON), and
        no blank lines: some providers send them to keep a waiting client from giving up.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not self._head or self._request.ctx.stream or kind != "application/json":
            return False
        if len(self._kept) + len(data) > _SHORT_BYTES or (data and data.isspace()):
            return False
        self._kept += data
        return True

    def pass_on(self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """What the client gets for a piece of the body."""
        if self._kept:
            data, self._kept = self._kept + data, b""
        if self._filter is not None:
            data = self._filter.feed(data) + (self._filter.close() if done else b"")
        out, self._head = self._head, b""
        if data:
            out += chunk(data) if self._chunked else data
        if done and self._chunked:
            tail = b"".join(name + b": " + value + b"\r\n" for name, value in trailers)
            out += b"0\r\n" + tail + b"\r\n"
        return out

    @property
    def takes_raw(self) -> bool:
        """May the upstream's own chunks go out, now that the head is out?"""
        return self._chunked and self._filter is None and not self._head

    def last_words(self, refusal: Refusal) -> bytes | None:
        """The provider's own error event as the end of a cut stream.

        ``None`` where the format has no such event: the connection must break then.
        """
        if not (self._chunked or self.close_delimited):
            return None
        if not (self._is_sse or "eventstream" in self.headers.get("content-type", "")):
            return None
        event = stream_error(self._request.endpoint.wire, self._request.endpoint, refusal)
        if not event:
            return None
        return chunk(event) + b"0\r\n\r\n" if self._chunked else event

    @property
    def _is_sse(self) -> bool:
        return "event-stream" in self.headers.get("content-type", "")
