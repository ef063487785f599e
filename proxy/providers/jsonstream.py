"""Streams of JSON documents: one a line, or the elements of one array.

Owns: cutting NDJSON and Gemini's array streams into documents. Must never: hold
more than one document, or raise.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from proxy.providers.skim import WHOLE_BYTES, Skimmer, loads

_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'["\\]')


class DocumentReader(Protocol):
    """What the framer tells of."""

    text_bytes: int

    def event(self, name: bytes, doc: Any) -> bytes | None:
        """One document."""


class JSONStreamFramer:
    """Feeds a reader with documents.

    Finds where each document ends by its brackets, so that it does not matter
    whether line feeds, commas or nothing stand between, or whether documents are
    printed over several lines.
    """

    __slots__ = (
        "_array",
        "_big",
        "_depth",
        "_document",
        "_escaped",
        "_in_string",
        "_reader",
        "_seen",
        "events",
        "faults",
    )

    def __init__(self, reader: DocumentReader) -> None:
        self._reader = reader
        self._document = bytearray()
        self._big: Skimmer | None = None
        self._depth = 0
        self._array = False
        self._seen = False
        self._in_string = False
        self._escaped = False
        self.events = 0
        #: Documents that a reader stumbled over; the others are still read.
        self.faults = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        start = at = 0
        floor = 1 if self._array else 0
        while at < len(data):
            if self._in_string:
                at = self._pass_string(data, at)
                continue
            match = _STRUCTURE.search(data, at)
            if match is None:
                break
            byte = data[match.start()]
            at = match.end()
            if byte == 34:
                self._in_string = True
            elif byte in b"{[":
                if not self._seen:
                    self._seen = True
                    if byte == 91:
                        self._array, floor = True, 1
                        self._depth = 1
                        continue
                if self._depth == floor:
                    start = match.start()
                self._depth += 1
            elif self._depth > 0:
                self._depth -= 1
                if self._depth == floor:
                    self._keep(data[start:at])
                    self._finish()
                    start = at
        if self._depth > floor:
            self._keep(data[start:])

    def close(self) -> None:
        """The stream is over; what is unfinished counts for nothing."""
        self._document.clear()
        self._big = None

    def _pass_string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            match = _STRING_END.search(data, at)
            if match is None:
                return len(data)
            at = match.end()
            if data[match.start()] == 34:
                self._in_string = False
                return at
            if at >= len(data):
                self._escaped = True
                return at
            at += 1

    def _keep(self, data: bytes) -> None:
        if self._big is not None:
            self._big.feed(data)
            return
        self._document += data
        if len(self._document) > WHOLE_BYTES:
            self._big = Skimmer()
            self._big.feed(bytes(self._document))
            self._document = bytearray()

    def _finish(self) -> None:
        if self._big is not None:
            doc = self._big.close()
            self._reader.text_bytes += self._big.elided
            self._big = None
        else:
            doc = loads(bytes(self._document))
            self._document = bytearray()
        self.events += 1
        if doc is None:
            return
        try:
            self._reader.event(b"", doc)
        except Exception:
            self.faults += 1
