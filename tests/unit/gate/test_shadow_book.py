"""What shadow mode would have done: bounded, and gone where it names the forgotten."""

from __future__ import annotations

from detection.types import Series
from proxy.forgetting import Name
from proxy.gate_shadow import LATEST, ShadowBook
from proxy.shadowed import together
from tests.unit.store.support import observation


def test_rows_and_their_calls_are_bounded() -> None:
    book = ShadowBook()
    for n in range(1200):
        book.note("block", "rule", Series("agent", f"agent-{n % 600}"), observation(n, float(n)))
    rows = book.rows()
    assert len(rows) == 500
    assert [row["series"]["value"] for row in rows[:2]] == ["agent-599", "agent-598"]
    for _ in range(3 * LATEST):
        book.note("block", "rule", Series("agent", "agent-1"), observation(1, 2000.0))
    (row,) = book.rows(most=1)
    assert (row["series"]["value"], len(row["latest"])) == ("agent-1", LATEST)
    assert len(book.rows(most=1, calls=3)[0]["latest"]) == 3


def test_who_is_forgotten_is_in_no_row_and_no_call() -> None:
    book = ShadowBook()
    user = Series("user", "ann")
    book.note("block", "rule", user, observation(1, 1.0, user="ann"))
    book.note("block", "rule", Series("agent", "a"), observation(2, 2.0, user="ann"))
    book.note("block", "rule", Series("agent", "a"), observation(3, 3.0, user="bob", key="key_b"))
    before = book.version
    book.forget(Name("user", "ann").owns)
    (row,) = book.rows()
    assert row["series"] == {"dimension": "agent", "value": "a"}
    assert (row["calls"], [call["key"] for call in row["latest"]]) == (2, ["key_b"])
    assert book.version != before


def test_the_same_rule_of_several_workers_is_one_row() -> None:
    books = [ShadowBook() for _ in range(3)]
    for n in range(90):
        book = books[n % 3]
        book.note("throttle", "rule", Series("agent", "a"), observation(n, float(n)))
    books[0].note("block", "rule", Series("agent", "a"), observation(1, 5.0))
    throttled, blocked = together([book.rows() for book in books])
    assert (throttled["kind"], throttled["calls"], throttled["at"]) == ("throttle", 90, 89.0)
    assert throttled["cost_nano_usd"] == sum(1_000_000 + n for n in range(90))
    assert [call["ts"] for call in throttled["latest"]] == [float(n) for n in range(89, 69, -1)]
    assert (blocked["calls"], blocked["kind"]) == (1, "block")
