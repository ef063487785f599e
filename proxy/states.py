"""How the parts of a worker are: for probes and for scrapes.

Owns: which facts of which part become a health component or a gauge. Must never:
wait for a part, or change one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.admin.health import Component, State
from proxy.metrics import Reading

if TYPE_CHECKING:
    from proxy.app import App


def state_checks(app: App) -> None:
    """Register the components of readiness."""

    def store() -> Component:
        if app.store.available:
            kind = app.store.settings.url.partition(":")[0]
            workers, offset = app.store.replicas(), app.store.clock.offset_seconds
            return Component(
                detail=f"{kind}; {workers} worker{'s' if workers > 1 else ''} in the fleet; "
                f"its clock {offset:+.3f} s from this machine's"
            )
        return Component(
            State.DEGRADED,
            f"the store does not answer: {app.store.link.last_error or 'not reached yet'}",
            "calls go on; blocks and budgets hold from the last snapshot. Check store.url and the "
            "server behind it",
        )

    def ledger() -> Component:
        if app.ledger.lag_seconds < 5:
            waiting, lag = app.ledger.pending_records, app.ledger.lag_seconds
            return Component(detail=f"{waiting} finished calls wait for the store; lag {lag:.1f} s")
        return Component(
            State.DEGRADED,
            f"{app.ledger.pending_records} finished calls wait in the journal for the store",
            "they are counted when the store is back",
        )

    def journal() -> Component:
        if not app.journal.waiting_for_disk and not app.journal.lost_records:
            return Component(detail=f"{_size_bytes(app.journal.directory) / 1e6:.1f} MB on disk")
        return Component(
            State.DEGRADED,
            f"the journal can't be written ({app.journal.last_error}): "
            f"{app.journal.waiting_for_disk} records wait, {app.journal.lost_records} are lost",
            f"make room or mend the rights of {app.journal.directory}",
        )

    def detection() -> Component:
        if not app.engine.faults:
            series = app.engine.health()["series"]
            return Component(detail=f"{series} series watched; no detector set aside")
        names = ", ".join(sorted(app.engine.faults))
        return Component(State.DEGRADED, f"detectors that failed: {names}", "see the log")

    def settings() -> Component:
        if app.last_config_error is None:
            name = Path(app.settings.source).name
            return Component(detail=f"{name} is in force" if name else "no file; the defaults")
        return Component(
            State.DEGRADED,
            "the last change of the configuration was refused: " + app.last_config_error,
            "mend the file; the settings before it are in force",
        )

    for name, check in (
        ("store", store),
        ("ledger", ledger),
        ("journal", journal),
        ("detection", detection),
        ("config", settings),
    ):
        app.health.add(name, check)


def state_readings(app: App) -> Callable[[], Iterable[Reading]]:
    """Gauges of the parts."""

    def read() -> Iterator[Reading]:
        yield Reading("tokenweir_store_up", (), int(app.store.available))
        yield Reading("tokenweir_store_lag_seconds", (), app.ledger.lag_seconds)
        yield Reading("tokenweir_store_pending_records", (), app.ledger.pending_records)
        for reason, count in list(app.ledger.failures.items()):
            yield Reading("tokenweir_store_failures_total", (reason,), count)
        yield Reading("tokenweir_journal_bytes", (), _size_bytes(app.journal.directory))
        yield Reading("tokenweir_journal_failures_total", (), app.journal.write_errors)
        yield Reading("tokenweir_detection_series", (), app.engine.health()["series"])
        kinds = Counter((str(a.kind), str(a.mode)) for a in app.gate.actions())
        for labels, count in kinds.items():
            yield Reading("tokenweir_actions_in_force", labels, count)
        tiers = Counter(incident.tier.label for incident in app.incidents.known_active())
        for tier, count in tiers.items():
            yield Reading("tokenweir_incidents_open", (tier,), count)
        yield from _budgets(app)
        outbox = app.alerts.outbox
        yield Reading("tokenweir_notifications_pending", (), outbox.pending)
        for outcome, count in list(outbox.outcomes.items()):
            yield Reading("tokenweir_notifications_total", outcome, count)

    return read


def _budgets(app: App) -> Iterator[Reading]:
    """Where budgets in dollars stand; those whose period has not begun here are left out."""
    for counter in app.gate.counters:
        if counter.rule.kind != "budget" or counter.rule.metric != "cost" or not counter.span.name:
            continue
        labels = (counter.rule.name, counter.scope)
        account = counter.account
        for name, nano_usd in (
            ("tokenweir_budget_limit_usd", counter.rule.limit),
            ("tokenweir_budget_spent_usd", counter.used_now),
            ("tokenweir_budget_reserved_usd", account.reserved + account.others),
        ):
            yield Reading(name, labels, nano_usd / 1e9)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))
