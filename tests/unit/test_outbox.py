"""What waits to be sent leaves in order, after its records, and at the latest with the turn."""

from __future__ import annotations

import asyncio

from proxy.http.outbox import FEW, TOGETHER, Outbox
from proxy.metrics import RuntimeMetrics


class Wire:
    """A transport that notes what leaves, in one list with others."""

    def __init__(self, name: str, out: list[str]) -> None:
        self.name, self.out, self.closing = name, out, False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.out.append(f"{self.name} {data.decode()}")


def busy(out: list[str]) -> Outbox:
    calls = RuntimeMetrics()
    calls.inflight = FEW + 1
    box = Outbox(asyncio.get_running_loop(), calls)
    box.before = lambda: out.append("records")
    return box


async def test_leaves_at_the_end_of_the_turn_behind_the_records() -> None:
    out: list[str] = []
    box, a, b = busy(out), Wire("a", out), Wire("b", out)
    box.send(a, b"1")  # type: ignore[arg-type]
    box.send(b, b"2")  # type: ignore[arg-type]
    box.send(a, b"3")  # type: ignore[arg-type]
    assert out == []
    await asyncio.sleep(0)
    assert out == ["records", "a 1", "b 2", "a 3"]
    box.send(a, b"4")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert out[-1] == "a 4"


async def test_a_few_calls_wait_for_nobody() -> None:
    out: list[str] = []
    calls = RuntimeMetrics()
    calls.inflight = FEW
    box = Outbox(asyncio.get_running_loop(), calls)
    assert not box.gather()
    box.send(Wire("a", out), b"1")  # type: ignore[arg-type]
    assert out == ["a 1"]


async def test_many_and_large_pieces_do_not_wait() -> None:
    out: list[str] = []
    box, a = busy(out), Wire("a", out)
    for number in range(TOGETHER):
        box.send(a, b"%d" % number)  # type: ignore[arg-type]
    assert out == ["records", *[f"a {n}" for n in range(TOGETHER)]]
    box.send(a, b"x" * 100_000)  # type: ignore[arg-type]
    assert out[-1] == "a " + "x" * 100_000


async def test_gathered_records_are_written_though_nothing_is_sent() -> None:
    out: list[str] = []
    box = busy(out)
    assert box.gather() and out == []
    await asyncio.sleep(0)
    assert out == ["records"]


async def test_who_was_cut_off_gets_nothing_more() -> None:
    out: list[str] = []
    box, a, b = busy(out), Wire("a", out), Wire("b", out)
    box.send(a, b"1")  # type: ignore[arg-type]
    box.send(b, b"2")  # type: ignore[arg-type]
    a.closing = True
    box.flush()
    assert out == ["records", "b 2"]
