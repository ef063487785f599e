"""A chunked answer, however it is cut into pieces: nothing lost, the end never early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.connector import Connector
from proxy.http.deadlines import Deadlines
from proxy.http.failures import Failure
from proxy.http.headers import RawHeaders, Scanned
from proxy.http.known_answer import KnownAnswers
from proxy.http.outbox import Outbox
from proxy.http.relay import Relay
from proxy.http.routing import Origin
from proxy.http.settings import UpstreamSettings
from proxy.http.upstream import UpstreamConnection
from proxy.metrics import RuntimeMetrics

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Pool:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.settings = UpstreamSettings(base_url="http://127.0.0.1:1")
        self.deadlines = Deadlines(loop)
        self.outbox = Outbox(loop, RuntimeMetrics())
        self.connector = Connector(
            Origin("127.0.0.1", 1, tls=False, upstream="u"), self.settings, loop
        )
        self.answers = KnownAnswers()
        self.back = 0

    def discard(self, connection: UpstreamConnection) -> None: ...

    def put_back(self, connection: UpstreamConnection, seconds: float) -> None:
        self.back += 1


class Transport:
    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Taker:
    """Puts together what a client would get, and what was read."""

    method = "POST"

    def __init__(self) -> None:
        self.sent = b""
        self.read = b""
        self.done = 0
        self.failure: Failure | None = None

    def raw_taker(self) -> Taker:
        return self

    def on_connected(self, connection: UpstreamConnection) -> None: ...
    def on_answer_head(self, status: int, reason: bytes, headers: Scanned) -> None: ...

    def on_answer_data(
        self, data: bytes, done: bool, trailers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        self.read += data
        self.done += done
        self.sent += b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self.sent += b"0\r\n\r\n" if done else b""

    def raw_out(self) -> Callable[[bytes], None]:
        return self.pass_on

    def pass_on(self, data: bytes) -> None:
        self.sent += data

    def on_answer_read(self, body: bytes, raw: bytes, done: bool) -> None:
        self.read += body
        self.done += done
        self.sent += raw

    def on_switched(self, headers: RawHeaders, rest: bytes) -> None: ...

    def on_upstream_failure(self, failure: Failure) -> None:
        self.failure = failure

    def on_upstream_paused(self) -> None: ...
    def on_upstream_resumed(self) -> None: ...


class Client:
    """Reads what a client got."""

    def __init__(self, sent: bytes) -> None:
        self.body = b""
        self.ends = 0
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(HEAD)
        parser.feed_data(sent)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ends += 1


def play(pieces: list[bytes]) -> tuple[Taker, Pool]:
    loop = asyncio.new_event_loop()
    try:
        pool, taker = Pool(loop), Taker()
        connection = UpstreamConnection(pool)
        connection.transport = Transport()  # type: ignore[assignment]
        connection.start(taker, b"")
        for piece in pieces:
            before = taker.done
            connection.data_received(piece)
            if not taker.done and taker.failure is None:
                assert ends(taker.sent) == 0, "the end passed before it was counted"
            assert taker.done - before in (0, 1)
        return taker, pool
    finally:
        loop.close()


def ends(sent: bytes) -> int:
    """How often a client saw an end; a broken frame is none."""
    try:
        return Client(sent).ends
    except httptools.HttpParserError:
        return 0


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({c % len(data) for c in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


EVENTS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12)


@given(
    EVENTS,
    st.lists(st.integers(0, 4000), max_size=14),
    st.sampled_from(["0", "00", "0;" + "x" * 50, "0\r\nTrailer: " + "y" * 50]),
)
@settings(max_examples=300, deadline=None)
def test_any_split_gives_the_same(events: list[bytes], cuts: list[int], last: str) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    wire = framed + last.encode() + b"\r\n\r\n"
    taker, pool = play([HEAD, *pieces_of(wire, cuts)])
    assert taker.read == b"".join(events)
    assert taker.done == 1 and taker.failure is None and pool.back == 1
    client = Client(taker.sent)
    assert (client.body, client.ends) == (taker.read, 1)


@given(st.lists(st.integers(0, 4000), max_size=8))
@settings(max_examples=100, deadline=None)
def test_what_looks_like_an_end_is_text(cuts: list[int]) -> None:
    event = b"0\r\n\r\n\n0\r\n\r\n0;\r\n"
    wire = b"".join([b"%x\r\n%b\r\n" % (len(event), event)] * 5) + b"0\r\n\r\n"
    taker, _ = play([HEAD, *pieces_of(wire, cuts)])
    assert taker.read == event * 5 and taker.done == 1


def test_bytes_behind_the_end_never_reach_a_client() -> None:
    taker, pool = play([HEAD, b"5\r\nhello\r\n", b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
    assert taker.failure is Failure.BAD_FRAMING and pool.back == 0
    assert b"HTTP/1.1" not in taker.sent


@pytest.mark.parametrize("bad", [b"zz\r\nhello\r\n", b"5\r\nhelloX\r\n0\r\n\r\n"])
def test_a_broken_frame_is_found(bad: bytes) -> None:
    taker, _ = play([HEAD, b"5\r\nhello\r\n", bad, b"0\r\n\r\n"])
    assert taker.failure is Failure.BAD_FRAMING and taker.done == 0


def test_a_call_that_ends_early_is_read_to_where_it_was() -> None:
    loop = asyncio.new_event_loop()
    connection = UpstreamConnection(Pool(loop))
    connection.transport = Transport()  # type: ignore[assignment]
    taker = Taker()
    connection.start(taker, b"")
    for piece in (HEAD, b"3\r\none\r\n", b"3\r\ntwo\r\n", b"5\r\nthr"):
        connection.data_received(piece)
    assert taker.read == b""
    assert connection.rest() == (b"onetwothr", False)
    loop.close()


def test_much_is_not_held_for_long() -> None:
    relay = Relay(Taker(), 0.0)
    assert relay.may_pass(b"5\r\nhello\r\n", 0.1)
    assert not relay.may_pass(b"5\r\nhello\r\n", 0.3)
    relay.take(0.3)
    assert relay.may_pass(b"x" * 60_000, 0.4) and not relay.may_pass(b"x" * 6_000, 0.4)
