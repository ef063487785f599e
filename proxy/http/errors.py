"""Answers of our own: refusals in the provider's own words.

Owns: the framing of an answer that no upstream gave. Must never: name a
credential, or show more than the refusal says.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from proxy.providers import refusal as shape
from proxy.providers.base import Refusal


class RefusedError(Exception):
    """The request can't go on; the refusal says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def answer(
    wire: str,
    refusal: Refusal,
    *,
    extra: Sequence[tuple[str, str]] = (),
    close: bool,
    with_body: bool = True,
) -> bytes:
    """The whole answer, head and body."""
    shaped = shape(wire, refusal)
    status, body = shaped.status, shaped.body
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {_safe(value)}" for name, value in (*shaped.headers, *extra)]
    lines.append(f"content-length: {len(body)}")
    if close:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return head + (body if with_body else b"")


def status_of(wire: str, refusal: Refusal) -> int:
    """The status that a refusal gets."""
    return shape(wire, refusal).status


def bare(status: int, message: str) -> bytes:
    """An answer to what could not even be read; the connection ends with it."""
    body = (message + "\n").encode("ascii", "replace")
    return (
        f"HTTP/1.1 {status} {_phrase(status)}\r\ncontent-type: text/plain\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode("ascii") + body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _safe(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ").replace("\0", " ")
