"""The only changes that are ever made to a body: a member's bytes, or one chunk.

Owns: replacing the model, asking a stream for its usage, and taking that usage's
chunk out again. Must never: re-serialise a document, or touch a byte more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote

import orjson

from proxy.providers.base import Endpoint

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)
_SPACE = b" \t\r\n"
_FORM_FIELD = re.compile(
    rb'content-disposition:[^\r\n]*\bname="?(model|user|stream|stream_format)"?[ \t]*(?:;[^\r\n]*)?'
    rb"\r?\n(?:[^\r\n]+\r?\n)*\r?\n([^\r\n]{0,256})\r?\n",
    re.IGNORECASE,
)
_FORM_END_BYTES = 65_536
_SLASH = re.compile("/")
#: No usage chunk is larger; a larger event passes as it comes.
_MAX_EVENT_BYTES = 65_536


class Member(NamedTuple):
    """A member of the outermost object: its name, and where its value stands."""

    name: bytes
    start: int
    end: int


def members(body: bytes) -> Iterator[Member]:
    """The members of a JSON object, in order, duplicates included.

    Stops where the body stops being JSON; a value that is not whole is not told.
    """
    depth = 0
    name: bytes | None = None
    key: bytes | None = None
    start = 0
    for match in _TOKEN.finditer(body):
        token = body[match.start()]
        if depth == 1 and key is not None and token in b",}":
            end = match.start()
            yield Member(key, *_trim(body, start, end))
            key = name = None
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1
            if depth <= 0:
                return
        elif depth == 1 and key is None:
            if token == 34:
                name = match[0][1:-1]
            elif token == 58 and name is not None:
                key, start = name, match.end()


def _trim(body: bytes, start: int, end: int) -> tuple[int, int]:
    while start < end and body[start] in _SPACE:
        start += 1
    while end > start and body[end - 1] in _SPACE:
        end -= 1
    return start, end


def replace_model(endpoint: Endpoint, path: str, body: bytes, model: str) -> tuple[str, bytes]:
    """Ask for another model; all other bytes stay as they are.

    The model stands in the path (Gemini, Bedrock, Azure deployments) where the
    endpoint says so, else in the body, where every duplicate is replaced: servers
    differ in which one they believe.
    """
    if endpoint.model is not None:
        span = _model_span(path, endpoint.model)
        if span is not None:
            safe = "/@.-_" if "/" in endpoint.model else "@.-_"
            return path[: span[0]] + quote(model, safe=safe) + path[span[1] :], body
    new = orjson.dumps(model)
    pieces: list[bytes] = []
    last = 0
    for member in members(body):
        if member.name == b"model":
            pieces += [body[last : member.start], new]
            last = member.end
    if not pieces:
        return path, _with_form_model(body, model)
    pieces.append(body[last:])
    return path, b"".join(pieces)


def _with_form_model(body: bytes, model: str) -> bytes:
    """A form's ``model`` field replaced; anything that is no form stays as it is."""
    if not body.startswith(b"--"):
        return body
    for start, name, value in form_fields(body):
        if name == b"model":
            return body[:start] + model.encode() + body[start + len(value) :]
    return body


def form_fields(body: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The short fields of a form: where the value stands, the name (lower case), the value.

    Files stand in the middle, and may be large: only both ends are looked at.
    """
    ends = [(0, len(body))]
    if len(body) > 2 * _FORM_END_BYTES:
        ends = [(0, _FORM_END_BYTES), (len(body) - _FORM_END_BYTES, len(body))]
    for start, end in ends:
        for match in _FORM_FIELD.finditer(body, start, end):
            yield match.start(2), match[1].lower(), match[2]


def _model_span(path: str, model: str) -> tuple[int, int] | None:
    """Where a model stands in a raw path: whole segments, up to an action like ``:predict``."""
    for match in _SLASH.finditer(path):
        start = match.end()
        ends = {len(path), path.find("/", start), path.rfind(":"), path.rfind("%3A")}
        for end in ends:
            if end > start and unquote(path[start:end]) == model:
                return start, end
    return None


def ask_for_usage(body: bytes) -> bytes:
    """Add ``stream_options.include_usage`` to a chat body, or return it as it is."""
    if b'"stream_options"' not in body:
        brace = body.find(b"{")
        if brace < 0 or body[:brace].strip():
            return body
        rest = body[brace + 1 :].lstrip()
        if not rest.startswith(b'"'):
            return body
        return body[: brace + 1] + b'"stream_options":{"include_usage":true},' + body[brace + 1 :]
    found = [m for m in members(body) if m.name == b"stream_options"]
    if not found:
        brace = body.find(b"{")
        return body[: brace + 1] + b'"stream_options":{"include_usage":true},' + body[brace + 1 :]
    for member in reversed(found):
        body = (
            body[: member.start] + _with_usage(body[member.start : member.end]) + body[member.end :]
        )
    return body


def _with_usage(options: bytes) -> bytes:
    if not options.startswith(b"{"):
        return b'{"include_usage":true}' if options == b"null" else options
    found = [m for m in members(options) if m.name == b"include_usage"]
    if found:
        for member in reversed(found):
            options = options[: member.start] + b"true" + options[member.end :]
        return options
    comma = b"," if options[1:-1].strip() else b""
    return b'{"include_usage":true' + comma + options[1:]


class UsageChunkFilter:
    """Takes the usage chunk that we asked for out of a chat stream.

    That chunk has empty ``choices``; all else passes byte for byte. Holds back at
    most one unfinished event, and none that is larger than a usage chunk can be.
    """

    __slots__ = ("_held", "_passing")

    def __init__(self) -> None:
        self._held = b""
        self._passing = False

    def feed(self, data: bytes) -> bytes:
        """See :class:`proxy.providers.base.StreamFilter`."""
        if self._held:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        start = 0
        while start < len(data):
            end = _event_end(data, start)
            if end < 0:
                rest = data[start:]
                if self._passing or len(rest) > _MAX_EVENT_BYTES:
                    # Keep what might be the first half of the event's end.
                    keep = len(rest) - len(rest.rstrip(b"\r\n"))
                    self._passing = True
                    out.append(rest[: len(rest) - keep])
                    self._held = rest[len(rest) - keep :]
                else:
                    self._held = rest
                break
            if self._passing or not _is_usage_chunk(data[start:end]):
                out.append(data[start:end])
            self._passing = False
            start = end
        return b"".join(out)

    def close(self) -> bytes:
        """See :class:`proxy.providers.base.StreamFilter`."""
        held, self._held = self._held, b""
        return b"" if not self._passing and _is_usage_chunk(held) else held


_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")


def _event_end(data: bytes, start: int) -> int:
    """Behind the blank line that ends the event, -1 if it is not there yet."""
    if b"\r" not in data:
        found = data.find(b"\n\n", start)
        return found + 2 if found >= 0 else -1
    match = _BLANK_LINE.search(data, start)
    return match.end() if match else -1


def _is_usage_chunk(event: bytes) -> bool:
    if b'"usage"' not in event or b'"choices"' not in event:
        return False
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        doc = orjson.loads(b"\n".join(lines))
    except ValueError:
        return False
    return (
        isinstance(doc, dict)
        and doc.get("choices") == []
        and isinstance(doc.get("usage"), dict)
        and not doc.get("error")
    )
