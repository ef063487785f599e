"""Budgets and limits: reserving, settling and holding a share, in whole units.

Owns: the arithmetic of one account (nano-USD, tokens, calls), periods of a
calendar, burn rates and time to exhaustion. Must never: know where the other
replicas are, read a clock, or use floating point for an amount.

An *account* is one limit for one value in one period. A replica may only admit
what it *holds*: a part of the limit that the store has set aside for it. The
store keeps, for all replicas together, ``spent + charged + holds <= limit``,
and each replica keeps ``reserved + pending <= hold``; so the limit holds
whatever is lost or late, as long as no call costs more than was reserved for
it. (docs/budgets.md has the proof, and what a crash may do.)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

NANO_USD = 1_000_000_000

#: (burn rate, long window, short window) of the SRE workbook's paging alerts,
#: https://sre.google/workbook/alerting-on-slos/ (table 5-8), in seconds.
BURN_PAIRS: tuple[tuple[float, int, int], ...] = ((14.4, 3600, 300), (6.0, 21600, 1800))

ROLLING_SLOTS = 10
_ROLLING_SECONDS = {
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
}
_EPOCH_FOREVER = 32_503_680_000.0


class Report(NamedTuple):
    """What a replica tells the store of one account.

    ``used`` was settled since the last acknowledged report, ``want`` is what the
    replica would like to hold afterwards, ``keep`` the part of its hold that may
    already be in use and can't be taken away.
    """

    used: int
    want: int
    keep: int


class Account:
    """One limit, one value, one period, as one replica sees it.

    Attributes
    ----------
    hold : int
        What the store has set aside for this replica and not yet counted spent.
    reserved : int
        Estimates of the calls under way.
    pending : int
        Settled, and not yet acknowledged by the store.
    spent, charged, others : int
        The fleet's settled sum, what was kept back for dead replicas, and what
        other replicas hold, as last heard.
    mine : int
        All that this replica settled in the period.
    waiting : int
        What calls wait for that the hold doesn't cover.
    heard_at : float
        When the store last answered for it.
    secured, until : int, float
        What stays counted for this replica should it not be heard again, and until
        when it may use more than that.
    place : int
        Where its owner keeps a copy of what is at risk, -1 for nowhere.

    Examples
    --------
    >>> a = Account(100)
    >>> a.acknowledge(a.report(60).used, held=60, spent=0, charged=0, others=40)
    >>> a.reserved += 10  # a call is let pass
    >>> a.hold - a.reserved - a.pending, a.remaining
    (50, 50)
    >>> a.reserved -= 10; a.pending += 4; a.mine += 4  # and used less
    >>> r = a.report(0); r
    Report(used=4, want=0, keep=0)
    >>> a.acknowledge(r.used, held=0, spent=4, charged=0, others=40)
    >>> a.hold, a.pending, a.remaining
    (0, 0, 56)
    """

    __slots__ = (
        "charged",
        "heard_at",
        "hold",
        "limit",
        "mine",
        "others",
        "pending",
        "place",
        "reserved",
        "secured",
        "spent",
        "until",
        "waiting",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hold = 0
        self.reserved = 0
        self.pending = 0
        self.mine = 0
        self.spent = 0
        self.charged = 0
        self.others = 0
        self.waiting = 0
        self.heard_at = float("-inf")
        self.secured = 0
        self.until = float("inf")
        self.place = -1

    @property
    def remaining(self) -> int:
        """What this replica could still get, as far as it knows."""
        known = self.limit - self.spent - self.charged - self.others
        return known - self.reserved - self.pending

    @property
    def total(self) -> int:
        """The fleet's settled sum with what this replica has not reported yet."""
        return self.spent + self.pending

    def report(self, headroom: int) -> Report:
        """Begin a report that leaves ``headroom`` free after it.

        Until it is acknowledged it must be repeated as it is, with the same
        sequence number. A smaller hold takes effect here first, so that nothing
        is admitted on what is being given back.
        """
        used = self.pending
        want = max(0, self.reserved + self.waiting + headroom)
        keep = max(0, self.hold - used)
        if want < keep:
            keep = want
            self.hold = used + want
        return Report(used, want, keep)

    def lapse(self) -> None:
        """Not heard for too long: only what is counted anyway may still be used.

        >>> a = Account(100)
        >>> a.hold, a.secured = 40, 15
        >>> a.lapse(); a.hold
        15
        """
        self.hold = min(self.hold, self.secured)
        self.until = float("inf")

    def acknowledge(self, used: int, *, held: int, spent: int, charged: int, others: int) -> None:
        """Take the store's answer to a report of ``used``."""
        self.pending -= used
        self.hold = held
        self.spent = spent
        self.charged = charged
        self.others = others


def headroom(
    *, per_second: float, largest: int, remaining: int, replicas: int, ahead_seconds: float = 0.5
) -> int:
    """How much to hold beyond what is reserved.

    Enough for ``ahead_seconds`` of the replica's own pace and two of its larger
    calls, but never more than a quarter of its even part of what remains: so
    near the end nobody sits on what another could use. A single replica may hold
    all of it.

    >>> headroom(per_second=10, largest=3, remaining=1000, replicas=1)
    6
    >>> headroom(per_second=1e6, largest=3, remaining=1200, replicas=1)
    1200
    >>> headroom(per_second=1e6, largest=3, remaining=1200, replicas=3)
    100
    """
    wanted = max(int(per_second * ahead_seconds), 2 * largest)
    return max(0, min(wanted, remaining // (4 * replicas) if replicas > 1 else remaining))


@dataclass(frozen=True, slots=True)
class Span:
    """A period: its name in account keys, and its bounds in epoch seconds."""

    name: str
    start: float
    end: float


def span_of(per: str, now: float, zone: tzinfo = UTC, *, rolling: bool = False) -> Span:
    """The period (``minute`` ... ``month``, ``session``) that a moment falls in.

    A rolling window's span is its newest tenth. Local days have 23 or 25 hours
    where clocks change.

    >>> from zoneinfo import ZoneInfo
    >>> berlin = ZoneInfo("Europe/Berlin")
    >>> s = span_of("day", datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp(), berlin)
    >>> s.name, (s.end - s.start) / 3600
    ('2026-03-29', 23.0)
    >>> span_of("week", datetime(2026, 1, 1, tzinfo=UTC).timestamp()).name
    '2025-12-29w'
    >>> s = span_of("month", datetime(2026, 12, 31, 23, 30, tzinfo=UTC).timestamp(), berlin)
    >>> s.name
    '2027-01'
    >>> span_of("hour", 7260.0, rolling=True)
    Span(name='r20', start=7200.0, end=7560.0)
    """
    if per == "session":
        return Span("session", 0.0, _EPOCH_FOREVER)
    if rolling:
        slot = _ROLLING_SECONDS[per] / ROLLING_SLOTS
        number = int(now // slot)
        return Span(f"r{number}", number * slot, (number + 1) * slot)
    if per == "minute":
        start_of = now - now % 60
        return Span(f"m{int(start_of)}", start_of, start_of + 60)
    local = datetime.fromtimestamp(now, zone)
    if per == "hour":
        first = now - local.minute * 60 - local.second - local.microsecond / 1e6
        return Span(f"h{round(first)}", first, first + 3600)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        name, begin, end = f"{midnight:%Y-%m-%d}", midnight, midnight + timedelta(days=1)
    elif per == "week":
        begin = midnight - timedelta(days=midnight.weekday())
        name, end = f"{begin:%Y-%m-%d}w", begin + timedelta(days=7)
    else:
        begin = midnight.replace(day=1)
        name, end = f"{begin:%Y-%m}", (begin + timedelta(days=32)).replace(day=1)
    return Span(name, begin.timestamp(), end.timestamp())


def slots_before(span: Span, now: float) -> tuple[str, ...]:
    """The names of a rolling window's other nine tenths.

    >>> slots_before(span_of("hour", 7260.0, rolling=True), 7260.0)[:2]
    ('r19', 'r18')
    """
    newest = int(span.name[1:])
    return tuple(f"r{newest - i}" for i in range(1, ROLLING_SLOTS))


def burn_rate(spent: int, limit: int, window_seconds: float, period_seconds: float) -> float:
    """How many times too fast: 1.0 spends the limit exactly by the period's end.

    >>> burn_rate(spent=20, limit=1000, window_seconds=3600, period_seconds=720 * 3600)
    14.4
    """
    if limit <= 0 or window_seconds <= 0:
        return 0.0
    return spent * period_seconds / (limit * window_seconds)


def exhausted_in(remaining: int, spent: int, window_seconds: float) -> float | None:
    """Seconds until nothing remains at a window's pace, ``None`` where nothing is spent.

    >>> exhausted_in(500, 100, 3600)
    18000.0
    >>> exhausted_in(500, 0, 3600) is None
    True
    """
    if remaining <= 0:
        return 0.0
    return remaining * window_seconds / spent if spent > 0 else None


def nano_usd(dollars: float) -> int:
    """Dollars as whole nano-USD.

    >>> nano_usd(0.1)
    100000000
    """
    return round(dollars * NANO_USD)


def dollars(nano: int) -> str:
    """Nano-USD for people: two digits, more below a cent, cut and never rounded up.

    >>> dollars(1_234_567_890), dollars(1_500_000), dollars(0), dollars(-20_000_000)
    ('$1.23', '$0.0015', '$0.00', '-$0.02')
    """
    sign, nano = ("-" if nano < 0 else ""), abs(nano)
    whole, part = divmod(nano, NANO_USD)
    digits = f"{part:09d}"
    if whole or part >= NANO_USD // 100 or not part:
        return f"{sign}${whole}.{digits[:2]}"
    return f"{sign}${whole}.{digits.rstrip('0')[:6].ljust(2, '0')}"
