"""JSON documents in bounded memory.

Owns: reading a document of any size while holding at most a few hundred
kilobytes of it. Must never: raise on what a provider sends, or grow past its cap.

Up to ``WHOLE_BYTES`` a document is kept and decoded as it is. Beyond that, long
strings (text, base64) and long runs of numbers (embeddings) are left out as they
pass; what remains is the skeleton with every short value: usage, model, finish
reasons, names. If even that grows past ``SKELETON_BYTES``, only its head and tail
are kept and single members are looked up by name. A raw ``"usage"`` can't stand
inside a JSON string, since a quote there is written ``\\"``: so the lookup finds
real members only.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

WHOLE_BYTES = 65_536
SKELETON_BYTES = 262_144
LONG_STRING_BYTES = 1024
_NUMBERS = re.compile(rb"[-0-9][-+0-9.eE,\s]{62,}[0-9]")
_MEMBERS = re.compile(
    rb'"(usage|usageMetadata|error|model|modelVersion|stop_reason|stopReason|status|meta|object|type'
    rb'|done|done_reason|prompt_eval_count|eval_count|finish_reason|finishReason|service_tier)"'
    rb"\s*:\s*"
)
#: Where a reason stands in a list of choices, and the name of that list.
_CHOICES = {"finish_reason": "choices", "finishReason": "candidates"}
_VALUE_BYTES = 65_536


class Skimmer:
    """One JSON document, fed in pieces."""

    __slots__ = (
        "_cut",
        "_escaped",
        "_kept",
        "_outside",
        "_skimming",
        "_string",
        "_string_long",
        "_tail",
        "elided",
        "seen",
    )

    def __init__(self) -> None:
        self._kept = bytearray()
        self._skimming = False
        self._outside = bytearray()
        self._string: bytearray | None = None
        self._string_long = False
        self._escaped = False
        self._cut = False
        self._tail = bytearray()
        #: Bytes fed, and bytes of long strings left out.
        self.seen = 0
        self.elided = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self.seen += len(data)
        if not self._skimming:
            self._kept += data
            if len(self._kept) <= WHOLE_BYTES:
                return
            data, self._kept = bytes(self._kept), bytearray()
            self._skimming = True
        self._skim(data)

    def close(self) -> Any:
        """The document, or what could be saved of it; ``None`` if nothing."""
        if not self._skimming:
            return loads(bytes(self._kept))
        if self._string is None:
            self._emit(self._outside)
        if not self._cut:
            found = loads(bytes(self._kept))
            if found is not None:
                return found
        return _salvage(bytes(self._kept) + bytes(self._tail))

    def _skim(self, data: bytes) -> None:
        position = 0
        end = len(data)
        while position < end:
            if self._string is None:
                quote = data.find(b'"', position)
                if quote < 0:
                    self._take_outside(data[position:])
                    return
                self._outside += data[position : quote + 1]
                self._emit(self._outside)
                self._outside = bytearray()
                self._string, self._string_long, self._escaped = bytearray(), False, False
                position = quote + 1
            else:
                position = self._skim_string(data, position)

    def _skim_string(self, data: bytes, position: int) -> int:
        """Pass over the inside of a string; where it goes on."""
        start = position
        end = len(data)
        if self._escaped:
            self._escaped = False
            position += 1
        while True:
            quote = data.find(b'"', position)
            stop = quote if quote >= 0 else end
            slash = data.find(b"\\", position, stop)
            while slash >= 0:
                position = slash + 2
                if position > stop:
                    break
                slash = data.find(b"\\", position, stop)
            if slash >= 0 and position > end:
                self._escaped = True
                self._keep_string(data[start:])
                return end
            if quote < 0:
                self._keep_string(data[start:])
                return end
            if position > quote:
                continue
            self._keep_string(data[start:quote])
            string = self._string
            if string is not None and not self._string_long:
                self._emit(string)
            self._string = None
            self._outside = bytearray(b'"')
            return quote + 1

    def _keep_string(self, data: bytes) -> None:
        string = self._string
        if string is None:
            return
        if self._string_long:
            self.elided += len(data)
        elif len(string) + len(data) > LONG_STRING_BYTES:
            self.elided += len(string) + len(data)
            self._string_long = True
            self._string = bytearray()
        else:
            string += data

    def _take_outside(self, data: bytes) -> None:
        """Text between strings: numbers and structure, let through number by number."""
        self._outside += data
        if len(self._outside) > 4096:
            comma = self._outside.rfind(b",")
            if comma < 0:
                comma = len(self._outside) - 1
            self._emit(self._outside[: comma + 1])
            self._outside = self._outside[comma + 1 :]

    def _emit(self, data: bytes | bytearray) -> None:
        if len(data) > 64:
            data = _NUMBERS.sub(b"0", data)
        if not self._cut:
            self._kept += data
            if len(self._kept) > SKELETON_BYTES:
                self._cut = True
                self._tail = self._kept[SKELETON_BYTES // 2 :]
                del self._kept[SKELETON_BYTES // 2 :]
            return
        self._tail += data
        if len(self._tail) > SKELETON_BYTES:
            del self._tail[: SKELETON_BYTES // 2]


def loads(data: bytes) -> Any:
    """Decode JSON, ``None`` where it is none. Invalid UTF-8 is replaced, not refused."""
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    if not data or data.isspace():
        return None
    try:
        return orjson.loads(data.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None


def _salvage(data: bytes) -> dict[str, Any] | None:
    """The members worth having from a document that is not whole; the last of a name wins."""
    found: dict[str, Any] = {}
    for match in _MEMBERS.finditer(data):
        name = match[1].decode()
        end = _value_end(data, match.end())
        if end is None:
            continue
        value = loads(data[match.end() : end])
        if value is None or (name in ("model", "object", "type") and name in found):
            continue
        if name in _CHOICES:
            choices = found.setdefault(_CHOICES[name], [])
            choices.append({"index": len(choices), name: value})
        else:
            found[name] = value
    return found or None


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)


def _value_end(data: bytes, start: int) -> int | None:
    """Where the JSON value that begins at ``start`` ends; ``None`` if it doesn't."""
    depth = 0
    for match in _TOKEN.finditer(data, start, start + _VALUE_BYTES):
        token = data[match.start()]
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1
            if depth <= 0:
                return match.end() if depth == 0 else match.start()
        elif depth == 0:
            return match.start() if token in b"," else match.end()
    return None
