"""How many names are told apart, and for how long."""

from __future__ import annotations

from proxy.http.identity import NameCap


def test_a_full_table_takes_what_is_wanted_and_calls_the_rest_other() -> None:
    names = NameCap(2, lambda dimension, name: name == "blocked")
    assert [names.told("agent", n) for n in ("a", "b", "c", "blocked", "a")] == [
        "a", "b", "other", "blocked", "a",
    ]  # fmt: skip
    assert names.told("user", "c") == "c", "each dimension has its own"


def test_sessions_are_bounded_by_the_hour_and_agents_for_good() -> None:
    now = 0.0
    names = NameCap(2, lambda dimension, name: False, lambda: now)
    for dimension in ("session", "agent"):
        assert [names.told(dimension, n) for n in ("a", "b", "c")] == ["a", "b", "other"]
    now = 3600.0
    assert names.told("agent", "c") == "other"
    assert names.told("session", "c") == "c"
    now = 5400.0
    assert [names.told("session", n) for n in ("a", "b")] == ["a", "other"]
