"""An answer that is known but for some values is read as a parser would have read it."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http.headers import Scanned
from proxy.http.known_answer import KnownAnswers
from proxy.http.upstream import UpstreamConnection
from tests.unit.test_relay import Pool, Taker, Transport

NAMES = st.sampled_from(
    ["Date", "X-A", "x-a", "Content-Type", "Connection", "Keep-Alive", "Set-Cookie", "TE"]
)
COLONS = st.sampled_from([": ", ": ", ": ", ":", ":  ", " : "])
VALUES = st.sampled_from(
    ["a", "b c", "x: y", "close", "keep-alive", "timeout=5", "", " z ", "\xe9", "a\r\n b", "a\nb"]
)
FIELDS = st.lists(st.tuples(NAMES, COLONS, VALUES), max_size=6)
STARTS = st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.0 200 OK"])
#: How the length's line is spelled, ``#`` for the length.
LENGTHS = st.sampled_from(["Content-Length: #", "Content-Length: #", "content-length:#", "X: #"])
PLAIN = [("Date", ": ", "a"), ("Content-Type", ": ", "application/json"), ("X-A", ": ", "b")]
OLD = [value for _, _, value in PLAIN]
NEW = ["later", "application/json", "c"]
Event = tuple[Any, ...]


class Counting(Pool):
    """Knows whether the connection was given up, which may be after it was put back."""

    gone = False

    def discard(self, connection: UpstreamConnection) -> None:
        self.gone = True


class Listener(Taker):
    """Notes all that a call is told."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.events: list[Event] = []

    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None:
        self.events.append(("head", status, reason, *headers))

    def on_answer_data(self, data: bytes, done: bool, trailers: Any) -> None:
        self.events.append(("data", data, done, list(trailers)))


def spelled(
    start: str, fields: list[tuple[str, str, str]], length: str, body: bytes, at: int
) -> bytes:
    lines = ["".join(field) for field in fields]
    lines.insert(min(at, len(lines)), length.replace("#", str(len(body))))
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1") + body


def told(answers: list[tuple[str, bytes]], *, learns: bool) -> tuple[list[Any], KnownAnswers]:
    """What calls of these methods on one connection are told, and how it went on."""
    loop = asyncio.new_event_loop()
    try:
        pool = Counting(loop)
        if not learns:
            pool.answers._misses = 10**9
        connection = UpstreamConnection(pool)
        connection.transport = Transport()  # type: ignore[assignment]
        found: list[Any] = []
        for method, data in answers:
            listener, before = Listener(method), pool.back
            connection.start(listener, b"")
            connection.data_received(data)
            found.append((listener.events, listener.failure, pool.back - before, pool.gone))
            found.append((connection.reused, connection._keep_alive_seconds))
            if pool.back == before or pool.gone:
                break
        return found, pool.answers
    finally:
        loop.close()


@given(
    STARTS,
    FIELDS,
    st.lists(VALUES, min_size=6, max_size=6),
    LENGTHS,
    st.integers(0, 6),
    st.binary(max_size=20),
    st.sampled_from([b"", b"", b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"]),
    st.sampled_from(["POST", "POST", "GET", "HEAD"]),
    st.sampled_from([0, 0, 0, 1]),
)
@example("HTTP/1.1 200 OK", PLAIN, NEW, "Content-Length: #", 1, b"{}", b"", "POST", 0)
@example("HTTP/1.1 200 OK", PLAIN, NEW, "Content-Length: #", 1, b"{}", b"", "HEAD", 0)
@example("HTTP/1.1 200 OK", PLAIN, NEW, "Content-Length: 1: #", 1, b"{}", b"", "POST", 0)
@example("HTTP/1.1 200 OK", PLAIN, OLD, "Content-Length: #", 1, b"12345", b"x", "POST", 0)
@example("HTTP/1.1 200 OK", PLAIN, OLD, "Content-Length: #", 1, b"12345", b"", "POST", 1)
def test_any_other_values(
    start: str,
    fields: list[tuple[str, str, str]],
    values: list[str],
    length: str,
    at: int,
    body: bytes,
    behind: bytes,
    method: str,
    missing: int,
) -> None:
    first = spelled(start, fields, "Content-Length: #", b"12345", at)
    others = [(name, colon, value) for (name, colon, _), value in zip(fields, values, strict=False)]
    again = spelled(start, others, length, body, at)
    again = again[: len(again) - missing] + behind
    calls = [("POST", first), (method, again), ("POST", first)]
    assert told(calls, learns=True)[0] == told(calls, learns=False)[0]


def test_the_usual_ones_are_known() -> None:
    first = spelled("HTTP/1.1 200 OK", PLAIN, "Content-Length: #", b"{}", 3)
    varied = [("Date", ": ", "later"), *PLAIN[1:]]
    second = spelled("HTTP/1.1 200 OK", varied, "Content-Length: #", b"{...}", 3)
    answers = told([("POST", first)], learns=True)[1]
    same, other = answers.read(first), answers.read(second)
    assert same is not None and same[1] == b"{}"
    assert same[0].headers[0]["date"] == "a"
    assert other is not None and other[1] == b"{...}"
    assert other[0].headers[0] == {**same[0].headers[0], "date": "later", "content-length": "5"}
    assert other[0].headers[2][0] == b"Date: later"
    # What decides how the body is read is no value that may vary; nor is it framed otherwise.
    for fields, length in (
        ([PLAIN[0], ("Content-Type", ": ", "text/event-stream"), PLAIN[2]], "Content-Length: #"),
        (PLAIN, "Content-Length: 1#"),
        (PLAIN, "Transfer-Encoding: chunked"),
    ):
        assert answers.read(spelled("HTTP/1.1 200 OK", fields, length, b"{}", 3)) is None


def test_an_origin_whose_answers_never_repeat_is_left_alone() -> None:
    def answer(number: int) -> bytes:
        return spelled(
            "HTTP/1.1 200 OK", [(f"X-{number}", ": ", "a")], "Content-Length: #", b"{}", 0
        )

    answers = told([("POST", answer(n)) for n in range(80)], learns=True)[1]
    assert answers.read(answer(79)) is None


def test_an_origin_whose_answers_mostly_repeat_stays_known() -> None:
    """Misses count in a row: one now and then, over days, must not end it."""

    def answer(number: int) -> bytes:
        return spelled(
            "HTTP/1.1 200 OK", [(f"X-{number}", ": ", "a")], "Content-Length: #", b"{}", 0
        )

    calls = [("POST", answer(n // 2)) for n in range(200)]
    answers = told(calls, learns=True)[1]
    assert answers.read(answer(99)) is not None
