"""The request's body on its way up: held while it is looked into, then streamed.

Owns: what has arrived and not gone out, and how it is framed upstream. Must
never: grow past what the settings allow to be looked into.
"""

from __future__ import annotations

from proxy.http.answer import chunk
from proxy.http.request import Head
from proxy.http.upstream import UpstreamConnection

#: So much of a body that is too long to be looked into whole is looked into.
_FIRST_PART_BYTES = 65_536
#: ``length`` of a request that has no body at all.
NO_BODY = -1


class Upload:
    """One request's body. ``length`` is bytes, ``None`` for chunked, or NO_BODY."""

    __slots__ = ("_pieces", "declared", "declares", "done", "length", "received", "streaming")

    def __init__(self, head: Head, declared: int | None, body: bytes | None = None) -> None:
        """``body``: all of it, where it is here before the call is started."""
        self.declared = declared
        self.declares = declared is not None or "transfer-encoding" in head.headers
        self.streaming = False
        self.length: int | None = NO_BODY
        self._pieces: list[bytes] = [body] if body else []
        self.received = len(body) if body else 0
        self.done = body is not None

    def enough(self, most: int) -> bool:
        """Is there as much as is looked into? ``most`` in bytes."""
        too_long = (self.declared or 0) > most and self.received >= _FIRST_PART_BYTES
        return too_long or self.received >= most

    def hold(self, data: bytes) -> None:
        """Keep a piece until it is known where it goes."""
        self._pieces.append(data)

    def held(self) -> bytes:
        """What is kept, in one piece."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def settle_framing(self, body: bytes) -> None:
        """Fix how the body goes up; ``body`` replaces what is kept."""
        if self.streaming:
            self.length = self.declared if self.declares else NO_BODY
        else:
            self.length = len(body) if body or self.declares else NO_BODY
        self._pieces = [body] if body else []

    def first(self, *, keep: bool) -> bytes:
        """What goes out with the head. ``keep``: it may have to go out once more."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not keep:
            self._pieces = []
        if self.length is None:
            data = chunk(data) + (b"0\r\n\r\n" if self.done else b"")
        return data

    def send(self, connection: UpstreamConnection, data: bytes) -> None:
        """Pass a further piece on."""
        connection.write(chunk(data) if self.length is None else data)

    def end(self, connection: UpstreamConnection) -> None:
        """The body is whole: end its framing, and wait for the answer."""
        if self.length is None:
            connection.write(b"0\r\n\r\n")
        connection.expect_answer()
