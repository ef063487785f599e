"""From a response's bytes to its usage: what all families share.

Owns: the values a reader gathers, and the parser that decodes, frames and feeds
it. Must never: raise, or hold more than one event and one block.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from detection.types import CallError, Usage
from proxy.providers.base import Headers
from proxy.providers.decode import Decoder
from proxy.providers.errors import read_error
from proxy.providers.eventstream import EventStreamFramer, is_event_stream
from proxy.providers.jsonstream import JSONStreamFramer
from proxy.providers.limits import retry_after
from proxy.providers.skim import Skimmer, loads
from proxy.providers.sse import SSEFramer

#: Bytes gathered before they are looked at: cheaper than looking at every chunk.
BLOCK_BYTES = 16_384
_MAX_NAMES = 256
#: No call has more; sums of what is believed must fit into 64 bits everywhere.
_MOST_TOKENS = 10**10
#: Integers of one digit (30 bits), as nearly all are, which Python compares without a call.
SMALL = 2**30 - 1
_new, _set = object.__new__, object.__setattr__
_MAX_CHOICES = 128


def count(value: object) -> int | None:
    """A token count, or ``None`` for anything that can't be one (-9, "12", true, 10**30)."""
    if type(value) is int:
        if 0 <= value <= SMALL:
            return value
        return value if 0 <= value <= _MOST_TOKENS else None
    if type(value) is float and 0 <= value <= _MOST_TOKENS and value == int(value):
        return int(value)
    return None


def text(value: object, limit: int = 256) -> str | None:
    """A short string, or ``None``."""
    return value[:limit] if isinstance(value, str) else None


def part(doc: object, name: str) -> dict[str, Any]:
    """A member that is an object, else an empty one."""
    value = doc.get(name) if isinstance(doc, dict) else None
    return value if isinstance(value, dict) else {}


def items(doc: object, name: str) -> list[Any]:
    """A member that is an array, else an empty one."""
    value = doc.get(name) if isinstance(doc, dict) else None
    return value if isinstance(value, list) else []


#: All fields of a usage of which nothing is told.
_UNTOLD = dict(vars(Usage()))


class Reader:
    """Gathers what one response says. A family overrides ``document`` and ``event``."""

    skipped: frozenset[bytes] = frozenset()
    #: Does a body that begins with ``[`` stream its elements?
    array_streams: ClassVar[bool] = False
    #: Do its streams have a terminal event?
    judged = True

    model: str | None = None
    native: dict[str, Any] | None = None
    ended = False
    text_bytes = 0
    status = 200

    def __init__(self) -> None:
        # Not of the class, where the interpreter finds them slowly: each answer is asked for them.
        self.error: CallError | None = None
        self.tier: str | None = None
        self.retry_after_seconds: float | None = None
        self.finish: dict[Any, str | None] = {}
        self.tools: list[str] = []
        self.server_tools: list[str] = []
        self.extra: dict[str, Any] = {}

    def head(self, status: int, headers: Headers) -> None:
        """The answer's status and header fields."""
        self.status = status
        if "retry-after" in headers or "retry-after-ms" in headers:
            self.retry_after_seconds = retry_after(headers, None)

    def document(self, doc: Any) -> None:
        """A whole JSON answer."""

    def event(self, name: bytes, doc: Any) -> bytes | None:
        """One event of a stream; see :class:`proxy.providers.sse.EventReader`."""
        self.document(doc)
        return None

    def done(self) -> None:
        """The end marker of a stream."""

    def plain(self, data: bytes) -> None:
        """The beginning of a body that is neither JSON nor a stream."""
        if self.status >= 400 and data:
            message = data.decode("utf-8", "replace").strip()
            self.error = CallError(message=message[:200] or None)

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        """The fields of :class:`Usage` in the provider's own usage object."""
        raise NotImplementedError

    def fail(self, doc: Any) -> bool:
        """Take an error out of a document; was there one?"""
        found = read_error(doc, self.status)
        if found is None:
            return False
        self.error = found
        return True

    def add_tool(self, name: object) -> None:
        """A tool that the client must run."""
        if isinstance(name, str) and name and len(self.tools) < _MAX_NAMES:
            self.tools.append(name[:128])

    def add_server_tool(self, name: object) -> None:
        """A tool that the provider ran."""
        if isinstance(name, str) and len(self.server_tools) < _MAX_NAMES:
            self.server_tools.append(name[:128])

    def add_finish(self, choice: object, reason: object) -> None:
        """How a choice ended, in native words; a later word replaces an earlier one."""
        if type(choice) is int and type(reason) is str and choice not in self.finish:
            # The usual: the first word of a choice.
            if len(self.finish) < _MAX_CHOICES:
                self.finish[choice] = reason[:64]
            return
        key = choice if isinstance(choice, int) else 0
        word = reason[:64] if isinstance(reason, str) else None
        if isinstance(reason, int) and not isinstance(reason, bool):
            word = str(reason)
        if word is None and key in self.finish:
            return
        if key in self.finish or len(self.finish) < _MAX_CHOICES:
            self.finish[key] = word

    def usage(self, *, complete: bool, streamed: bool) -> Usage:
        """All of it, as one value."""
        found = _UNTOLD.copy()
        if self.native is not None:
            found.update(self.counts(self.native))
            self.extra["native_usage"] = self.native
            if found.get("cached_audio_tokens"):
                self.extra["cached_audio_tokens"] = found["cached_audio_tokens"]
        if (
            found["input_tokens"] is not None
            or found["output_tokens"] is not None
            or found["total_tokens"] is not None
        ):
            found["source"] = "reported"
        if found["service_tier"] is None:
            found["service_tier"] = self.tier
        found["model_served"] = self.model
        reasons = tuple(self.finish.values())
        found["finish_reasons"] = tuple([r or "" for r in reasons]) if None in reasons else reasons
        if self.tools:
            found["tool_call_names"] = tuple(self.tools)
        if self.server_tools:
            found["server_tool_names"] = tuple(self.server_tools)
        found["output_bytes"] = self.text_bytes
        found["error"] = self.error
        if streamed and self.judged:
            found["complete"] = self.ended
        found["retry_after_seconds"] = self.retry_after_seconds
        found["extra"] = self.extra
        # A frozen class's own __init__ sets each field by name through ``object``, which takes
        # ten times as long as taking ``found`` over.
        usage = _new(Usage)
        _set(usage, "__dict__", found)
        return usage


class QuietReader(Reader):
    """Answers that use no tokens: only their errors matter."""

    judged = False

    def document(self, doc: Any) -> None:
        if self.status >= 400:
            self.fail(doc)


class CountReader(Reader):
    """Answers that count tokens which nobody was billed for."""

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        for name in ("input_tokens", "totalTokens", "total_tokens", "inputTokens"):
            counted = count(doc.get(name))
            if counted is not None:
                self.extra["counted_tokens"] = counted
                return


@lru_cache(maxsize=256)
def _media_type(value: str) -> str:
    return value.partition(";")[0].strip().lower()


class BodyParser:
    """Reads one response body: decompresses, frames, and lets the reader gather."""

    __slots__ = (
        "_block",
        "_closed",
        "_decoder",
        "_faults",
        "_framer",
        "_json",
        "_reader",
        "_type",
    )

    def __init__(self, reader: Reader, status: int, headers: Headers) -> None:
        self._reader = reader
        self._type = _media_type(headers.get("content-type", ""))
        encoding = headers.get("content-encoding")
        self._decoder = Decoder(encoding) if encoding else None
        self._block = bytearray()
        self._framer: SSEFramer | JSONStreamFramer | EventStreamFramer | None = None
        self._json: Skimmer | None = None
        self._closed: Usage | None = None
        self._faults = 0
        try:
            reader.head(status, headers)
        except Exception:
            self._faults += 1

    def feed(self, data: bytes) -> None:
        """See :class:`proxy.providers.base.UsageParser`."""
        block = self._block
        block += data
        if len(block) >= BLOCK_BYTES:
            self._flush()

    def close(self, *, complete: bool) -> Usage:
        """See :class:`proxy.providers.base.UsageParser`."""
        if self._closed is not None:
            return self._closed
        try:
            if not self._is_short_document():
                self._flush()
                self._end()
        except Exception:
            self._faults += 1
        try:
            usage = self._reader.usage(complete=complete, streamed=self._framer is not None)
        except Exception:
            self._faults += 1
            usage = Usage(model_served=self._reader.model, error=self._reader.error)
        self._closed = usage
        return usage

    @property
    def faults(self) -> int:
        """What went wrong inside; the traffic never sees it."""
        return self._faults + (self._framer.faults if self._framer is not None else 0)

    @property
    def output_bytes(self) -> int:
        """Bytes of answer text read so far; what is still in the block is not in it."""
        return self._reader.text_bytes

    def _is_short_document(self) -> bool:
        """The most common answer: one JSON document that came within one block."""
        if self._framer or self._json or self._decoder or self._type != "application/json":
            return False
        try:
            doc = orjson.loads(self._block)
        except ValueError:
            return False
        if type(doc) is not dict:
            return False
        self._block.clear()
        self._reader.document(doc)
        return True

    def _flush(self) -> None:
        if not self._block or self._closed is not None:
            return
        data = bytes(self._block)
        self._block.clear()
        try:
            if self._decoder is None:
                self._inspect(data)
            else:
                for piece in self._decoder.feed(data):
                    self._inspect(piece)
                if not self._decoder.readable:
                    # All that is left to know of the answer is how long it is.
                    self._reader.text_bytes += len(data)
        except Exception:
            self._faults += 1

    def _inspect(self, data: bytes) -> None:
        if self._framer is not None:
            self._framer.feed(data)
        elif self._json is not None:
            self._json.feed(data)
        else:
            self._begin(data)

    def _begin(self, data: bytes) -> None:
        """Decide by the first bytes, for labels lie: JSON errors come as event streams."""
        kind = self._type
        start = data.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start and len(data) < 65_536:
            self._block[:0] = data
            if len(data) < BLOCK_BYTES:
                return
            self._block.clear()
        if kind == "application/vnd.amazon.eventstream" or is_event_stream(data):
            self._framer = EventStreamFramer(self._reader)
        elif start[:1] in (b"{", b"["):
            lines = kind in ("application/x-ndjson", "application/jsonl", "application/json-lines")
            array = start[:1] == b"[" and self._reader.array_streams
            if lines or array or _several_documents(start):
                self._framer = JSONStreamFramer(self._reader)
            else:
                self._json = Skimmer()
        elif kind == "text/event-stream" or _EVENT_START.match(start):
            self._framer = SSEFramer(self._reader)
        else:
            self._reader.plain(start[:4096])
            self._json = _Nothing()
        self._inspect(data)

    def _end(self) -> None:
        if self._block:
            # Nothing but white space came.
            self._block.clear()
        if self._framer is not None:
            self._framer.close()
        elif self._json is not None:
            doc = self._json.close()
            if doc is not None:
                self._reader.document(doc)


class _Nothing(Skimmer):
    """Takes a body that is of no interest: audio, HTML."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Let it pass."""

    def close(self) -> None:
        """There is no document."""


_EVENT_START = re.compile(rb"(?:data|event|id|retry)?:")


def _several_documents(data: bytes) -> bool:
    """Does a second document follow on the next line (NDJSON under another label)?"""
    line, feed, rest = data.partition(b"\n")
    return (
        bool(feed)
        and rest[:1] == b"{"
        and line.rstrip().endswith(b"}")
        and (loads(line) is not None)
    )
