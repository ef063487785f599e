"""Fixtures of the wire families: small answers of our own, written from vendors' documents.

Owns: turning a fixture file into the bytes of an answer, and the splits of bytes.
Must never: hold recorded traffic.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detection.types import Usage
from proxy.providers import provider_of, read_request, recognise, response_parser
from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.eventstream import encode_message

FOLDER = Path(__file__).parent / "fixtures"
KEY = b"fixture"


@dataclass(frozen=True, slots=True)
class Fixture:
    """One answer, and what is to be read from it."""

    family: str
    name: str
    content: dict[str, Any]

    @property
    def request_body(self) -> bytes:
        """The request's body: JSON, or a form where the fixture has one."""
        if "form" in self.content:
            parts = [
                f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
                for name, value in self.content["form"].items()
            ]
            return "".join([*parts, "--b--\r\n"]).encode()
        request = self.content.get("request")
        return b"" if request is None else json.dumps(request).encode()

    @property
    def request_type(self) -> str:
        """The request's content type."""
        return "multipart/form-data; boundary=b" if "form" in self.content else "application/json"

    @property
    def body(self) -> bytes:
        """The answer's body as the wire has it."""
        content = self.content
        if "text" in content:
            return str(content["text"]).encode()
        if "json" in content:
            return json.dumps(content["json"]).encode()
        if "sse" in content:
            return _events(content["sse"], content.get("newline", "\n"))
        if "eventstream" in content:
            return b"".join(_message(name, payload) for name, payload in content["eventstream"])
        if "chunks" in content:
            return b"".join(
                _message(
                    "chunk",
                    {"bytes": base64.b64encode(json.dumps(chunk).encode()).decode(), "p": "abc"},
                )
                for chunk in content["chunks"]
            )
        if "ndjson" in content:
            return b"".join(json.dumps(doc).encode() + b"\n" for doc in content["ndjson"])
        return json.dumps(content["array"], indent=2).encode()

    @property
    def endpoint(self) -> Endpoint:
        """The call, recognised."""
        content = self.content
        return recognise(
            provider_of(content["host"], content["path"]),
            "",
            content.get("method", "POST"),
            content["path"],
            content.get("query", ""),
            {},
        )

    def facts(self) -> RequestFacts:
        """The request, read."""
        return read_request(self.endpoint, self.request_body, self.request_type, KEY)

    def read(self, pieces: Iterable[bytes], headers: dict[str, str] | None = None) -> Usage:
        """The answer, read from pieces."""
        parser = response_parser(
            self.endpoint,
            self.facts(),
            self.content.get("status", 200),
            {**self.content["headers"], **(headers or {})},
        )
        for piece in pieces:
            parser.feed(piece)
        return parser.close(complete=True)


def _events(events: Sequence[tuple[str | None, Any]], newline: str) -> bytes:
    lines = []
    for name, data in events:
        if name is not None:
            lines.append(f"event: {name}")
        lines.append("data: " + (data if isinstance(data, str) else json.dumps(data)))
        lines.append("")
    return (newline.join(lines) + newline).encode()


def _message(name: str, payload: Any) -> bytes:
    kind, _, exception = name.partition(":")
    if kind == "exception":
        headers = ((":exception-type", exception), (":message-type", "exception"))
    else:
        headers = ((":event-type", name), (":message-type", "event"))
    return encode_message((*headers, (":content-type", "application/json")), payload)


def fixtures() -> list[Fixture]:
    """Every fixture on disk."""
    return [
        Fixture(path.parent.name, path.stem, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(FOLDER.glob("*/*.json"))
    ]


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces, cut at these places."""
    last = 0
    for place in sorted({p for p in places if 0 < p < len(data)}):
        yield data[last:place]
        last = place
    yield data[last:]


def by_bytes(data: bytes) -> Iterator[bytes]:
    """The data byte by byte."""
    for at in range(len(data)):
        yield data[at : at + 1]
