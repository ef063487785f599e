"""Server-sent events, in bounded memory.

Owns: cutting a byte stream into events (WHATWG HTML, section 9.2). Must never:
hold more than one event, decode JSON that a reader said it can't learn from,
or raise.

Most events of a chat stream differ from the one before only in one string of
text. An event that taught its reader nothing becomes a template: what stands
before that string, and what stands after it. Events that fit a template byte for
byte are passed over at the price of two comparisons.
"""

from __future__ import annotations

from typing import Any, Protocol

from proxy.providers.skim import WHOLE_BYTES, Skimmer, loads

#: What stands before a random padding that some vendors append to each event.
_PADDINGS = (b'"obfuscation":"', b'"p":"')
_MAX_TEMPLATES = 6
_EXACT, _PADDED, _SPACED = 0, 1, 2
_BACKSLASH = 92
#: How an event with a padding ends.
_END = b'"}\n\n'


class EventReader(Protocol):
    """What the framer tells of."""

    #: Names of events that can teach nothing but the length of their text.
    skipped: frozenset[bytes]
    text_bytes: int

    def event(self, name: bytes, doc: Any) -> bytes | None:
        """One event. The member with its text (``b'"text":"'``) if it taught nothing else."""

    def done(self) -> None:
        """The marker ``[DONE]``."""


class SSEFramer:
    """Feeds a reader with events."""

    __slots__ = (
        "_big",
        "_big_name",
        "_pending",
        "_reader",
        "_return_held",
        "_templates",
        "events",
        "faults",
    )

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._pending = b""
        self._big: Skimmer | None = None
        self._big_name = b""
        self._return_held = False
        self._templates: list[tuple[bytes, int, bytes, int, int, bytes]] = []
        self.events = 0
        #: Events that a reader stumbled over; the others are still read.
        self.faults = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        if not data:
            return
        if self._return_held:
            self._return_held = False
            data = b"\r" + data
        if b"\r" in data:
            if data.endswith(b"\r"):
                self._return_held = True
                data = data[:-1]
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._feed_lines(data)

    def close(self) -> None:
        """The stream is over; an event without its blank line still counts."""
        data, self._pending = self._pending, b""
        if self._big is not None:
            self._feed_big(data + b"\n\n")
        elif data:
            self._dispatch(data)

    def _feed_lines(self, data: bytes) -> None:
        if self._big is not None:
            data = self._feed_big(data)
            if self._big is not None:
                return
        elif self._pending:
            data = self._pending + data
            self._pending = b""
        at, size = 0, len(data)
        while at < size:
            after = self._pass_over(data, at)
            if after >= size:
                return
            cut = data.find(b"\n\n", after)
            if cut < 0:
                at = after
                break
            self._event(data[after:cut])
            at = cut + 2
        if size - at > WHOLE_BYTES:
            self._begin_big(data[at:])
        else:
            self._pending = data[at:]

    def _pass_over(self, data: bytes, at: int) -> int:
        """Pass over all events that fit a template; where the first that does not begins."""
        templates = self._templates
        if not templates:
            return at
        starts, find = data.startswith, data.find
        escapes = find(b"\\", at) >= 0
        passed = letters = 0
        begun = -1
        while begun != at:
            begun = at
            for prefix, before, tail, behind, mode, next_one in templates:
                # Most streams hold long runs of one template: stay with it while it fits.
                fits = starts(prefix, at)
                while fits:
                    start = at + before
                    end = find(b'"', start)
                    if not starts(tail, end) or (escapes and data[end - 1] == _BACKSLASH):
                        break
                    after = end + behind
                    if mode is _PADDED:
                        close = find(b'"', after)
                        fits = starts(next_one, close)
                        if not fits and not starts(_END, close):
                            break
                        after = close + 4
                    elif mode is _SPACED:
                        after = _after_spaces(data, after)
                        if after < 0:
                            break
                        fits = starts(prefix, after)
                    else:
                        fits = starts(prefix, after)
                    at = after
                    passed += 1
                    letters += end - start
        self.events += passed
        self._reader.text_bytes += letters
        return at

    def _event(self, piece: bytes) -> None:
        """One event that fits no template."""
        self.events += 1
        skipped = self._reader.skipped
        if skipped and _name(piece) in skipped:
            self._reader.text_bytes += _text_length(piece)
        else:
            self._dispatch(piece)

    def _dispatch(self, piece: bytes) -> None:
        """Read one event in full."""
        name = b""
        piece = piece.removeprefix(b"\xef\xbb\xbf")
        if piece.startswith(b"data: ") and b"\n" not in piece:
            data = piece[6:]
            lines = None
        else:
            lines = []
            for line in piece.split(b"\n"):
                field, _, value = line.partition(b":")
                value = value.removeprefix(b" ")
                if field == b"data":
                    lines.append(value)
                elif field == b"event":
                    name = value.strip()
            data = b"\n".join(lines)
        if not data:
            return
        if data.startswith(b"[DONE]"):
            self._reader.done()
            return
        doc = loads(data)
        if doc is None and lines is not None and len(lines) > 1:
            # Not one document over several lines, so several events without blank lines.
            for line in lines:
                if line.strip() == b"[DONE]":
                    self._reader.done()
                elif (doc := loads(line)) is not None:
                    self._tell(name, doc)
            return
        if doc is None:
            return
        member = self._tell(name, doc)
        if member is not None:
            self._learn(piece, member)

    def _tell(self, name: bytes, doc: Any) -> bytes | None:
        try:
            return self._reader.event(name, doc)
        except Exception:
            self.faults += 1
            return None

    def _learn(self, piece: bytes, member: bytes) -> None:
        """Make a template of an event that taught its reader nothing but text."""
        found = piece.find(member)
        if found < 0:
            # Python's own encoder puts a space behind the colon.
            member = member[:-1] + b' "'
            found = piece.find(member)
            if found < 0:
                return
        start = found + len(member)
        end = piece.find(b'"', start)
        if end < 0 or piece[end - 1] == _BACKSLASH:
            return
        tail, mode = _without_filling(piece[end:])
        prefix = piece[:start]
        template = (prefix, start, tail, len(tail), mode, _END + prefix)
        if template in self._templates:
            return
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.pop()
        self._templates.insert(0, template)

    def _begin_big(self, data: bytes) -> None:
        """An event too large to hold: its data goes through the skimmer."""
        head = data[:4096]
        name = b""
        at = head.find(b"event:")
        if at == 0 or (at > 0 and head[at - 1 : at] == b"\n"):
            name = head[at + 6 :].split(b"\n", 1)[0].strip()
        at = 0 if data.startswith(b"data:") else data.find(b"\ndata:") + 1
        self._big = Skimmer()
        self._big_name = name
        if data.startswith(b"data:", at):
            self._feed_big(data[at + 5 :])

    def _feed_big(self, data: bytes) -> bytes:
        """Feed the large event; what follows it."""
        big = self._big
        if big is None:
            return data
        # A JSON document has no raw line feed but between its tokens: the event ends at two.
        if self._pending == b"\n":
            data = b"\n" + data
            self._pending = b""
        end = data.find(b"\n\n")
        if end < 0:
            if data.endswith(b"\n"):
                data, self._pending = data[:-1], b"\n"
            big.feed(data)
            return b""
        big.feed(data[:end])
        self._big = None
        self.events += 1
        doc = big.close()
        self._reader.text_bytes += big.elided if self._reader.text_bytes == 0 else 0
        if doc is not None:
            self._tell(self._big_name, doc)
        return data[end + 2 :]


def _without_filling(tail: bytes) -> tuple[bytes, int]:
    """The part of an event's tail that does not change, and what fills it up."""
    for marker in _PADDINGS:
        at = tail.find(marker)
        if at >= 0 and tail.find(b'"', at + len(marker)) == len(tail) - 2:
            return tail[: at + len(marker)], _PADDED
    if tail.endswith(b"}"):
        return tail[:-1].rstrip(b" "), _SPACED
    return tail + b"\n\n", _EXACT


def _after_spaces(data: bytes, at: int) -> int:
    """Behind the event that ends in spaces and a brace; -1 if it does not."""
    if data.startswith(b"}\n\n", at):
        return at + 3
    close = data.find(b"}", at)
    if close < 0 or not data.startswith(b"}\n\n", close) or data[at:close].strip(b" "):
        return -1
    return close + 3


def _name(piece: bytes) -> bytes:
    """The event's name, from its line or from a leading ``type`` member."""
    if piece.startswith(b"event: "):
        return piece[7 : piece.find(b"\n", 7)]
    if piece.startswith(b'data: {"type":"'):
        return piece[15 : piece.find(b'"', 15)]
    return b""


def _text_length(piece: bytes) -> int:
    at = piece.find(b'"delta":"')
    if at < 0:
        return 0
    start = at + 9
    end = piece.find(b'"', start)
    while end > 0 and piece[end - 1] == 92:
        end = piece.find(b'"', end + 1)
    return max(0, end - start)
