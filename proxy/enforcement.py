"""Decisions everywhere: actions, keys and shares of budgets, kept with the store.

Owns: what is in force, spread to all replicas and kept over restarts; the audit
trail; the background work that the gate must not do. Must never: stand in the
way of a request, or forget a block because the store is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from detection.types import Action, ActionKind, Mode, Score, Series, Verdict
from proxy.enforcement_alerts import MoneyAlerts
from proxy.enforcement_audit import AuditTrail
from proxy.enforcement_codec import from_json, to_json
from proxy.enforcement_holds import Holds
from proxy.enforcement_mirror import Mirror
from proxy.gate import Gate
from proxy.gate_rules import mildest
from proxy.keys import KeyRecord, KeyRing
from proxy.providers.base import Refusal
from proxy.store.control_book import Record
from proxy.store.errors import StoreError
from proxy.store.store import Store
from proxy.store.tasks import cancel

_TICK_SECONDS = 0.1
#: Reports a second, however many new accounts wait for their first share; these many at once.
_REPORTS_A_SECOND, _AT_ONCE = 20, 40
_LOOK_SECONDS = 1.0
_REFRESH_SECONDS = 10.0
_FORGET_SECONDS = 60.0
#: Of those that wait, whom one report asks for: it holds no more accounts.
_WAITERS = 300
#: Budgets that are asked for whenever some are, though nobody here spends them.
_BUDGETS_HEARD = 1_000
_GIVE_BACK_SECONDS = 3.0
_BACKOFF_SECONDS = 0.25
_CUT_SECONDS = 10.0

log = structlog.get_logger("tokenweir.enforcement")


class Enforcement:
    """One worker's hand on gate and store.

    Parameters
    ----------
    data_dir
        Where the audit trail (worker 0's) and the mirror of shares are kept.
    index
        The worker's number.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        keys: KeyRing,
        store: Store,
        clock: Callable[[], float],
        data_dir: Path,
        index: int = 0,
    ) -> None:
        self.gate = gate
        self.keys = keys
        self._store = store
        self._controls = store.controls
        self._clock = clock
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard_of = 0
        self._forgot_at = 0.0
        self._known: dict[str, dict[str, Any]] = {}
        self._reasons: dict[str, str] = {}
        self._verdict_listeners: list[Callable[[Verdict], object]] = []
        self._evidence_listeners: list[Callable[[Series, Score], object]] = []
        self._action_listeners: list[Callable[[dict[str, Any]], object]] = []
        self.audit = AuditTrail(data_dir / "audit") if index == 0 else None
        self.alerts = MoneyAlerts(gate.counters)
        gate.on_softened(self.alerts.softened)
        self._mirror = self._open_mirror(data_dir / "holds" / f"{index}.bin")
        self.holds = Holds(
            gate.counters,
            store.link,
            clock,
            replica=self._mirror.replica if self._mirror is not None else uuid.uuid4().hex,
            prefix=store.settings.key_prefix,
            shards=store.settings.shard_count,
            mirror=self._mirror,
        )
        self.same_secret = True

    def on_verdict(self, callback: Callable[[Verdict], object]) -> None:
        """Called with budget thresholds, burn rates and limits that refused."""
        self._verdict_listeners.append(callback)

    def on_evidence(self, callback: Callable[[Series, Score], object]) -> None:
        """Called each second with the budgets that burn, as evidence for detection."""
        self._evidence_listeners.append(callback)

    def on_action(self, callback: Callable[[dict[str, Any]], object]) -> None:
        """Called with every change of what is in force, wherever it was made."""
        self._action_listeners.append(callback)

    # -- life -------------------------------------------------------------------

    async def start(self) -> None:
        """Put in force what is on the disk and in the store, and begin the work."""
        counters = self.gate.counters
        counters.alone = False
        counters.on_wait = self._wake.set
        for kind, take in (("key", self._key_changed), ("action", self._action_changed)):
            for record in self._controls.all(kind):
                take(record)
            self._controls.on_change(kind, take)
        self._compare_secret()
        self.prepare()
        self._tasks = [
            asyncio.create_task(self._report_forever(), name="enforcement-report"),
            asyncio.create_task(self._look_forever(), name="enforcement-look"),
        ]

    async def stop(self) -> None:
        """Give shares back, and end."""
        await cancel(self._tasks)
        self._tasks = []
        counters = self.gate.counters
        counters.release(counters.take_waiters(), answered=False)
        with contextlib.suppress(StoreError, RedisError):
            await self.holds.give_back(_GIVE_BACK_SECONDS)
        self.gate.counters.mirror = []
        if self._mirror is not None:
            for counter in self.gate.counters:
                counter.account.place = -1
            self._mirror.close()

    def _open_mirror(self, path: Path) -> Mirror | None:
        try:
            return Mirror(path)
        except OSError as error:
            log.warning("no_mirror_of_shares", reason=error.strerror or str(error))
            return None

    def prepare(self) -> None:
        """Fetch the shares of what counts all calls, before the first one asks."""
        now = self._clock()
        self._prepared = self.gate.counters.rules
        for counter in self.gate.counters.totals():
            counter.seen = now
            self.gate.counters.dirty.add(counter)
        self._wake.set()

    def _compare_secret(self) -> None:
        record = self._controls.get("install", "secret")
        if record is None:
            self._controls.put("install", "secret", {"check": self.keys.check}, by="start")
            return
        self.same_secret = record.body is not None and record.body.get("check") == self.keys.check
        if not self.same_secret:
            log.error(
                "install_secret_differs",
                mend="give every replica the same keys.install_secret: until then a key has "
                "another fingerprint on each, and blocks by key hold only where they were made",
            )

    # -- decisions --------------------------------------------------------------

    def put_in_force(self, actions: Sequence[Action]) -> list[Action]:
        """Policy's actions: in force here at once and everywhere within a second.

        Returns those that the file's mode, protect lists and the blast radius let
        through, as they were taken.
        """
        actions = [replace(a, mode=mildest(self.gate.mode, a.mode)) for a in actions]
        actions = [a for a in actions if a.mode is not Mode.OBSERVE]
        known = [a for a in actions if a.kind not in (ActionKind.NOTIFY, ActionKind.WEBHOOK)]
        taken = self.gate.apply(known)
        for action in taken:
            self._publish(action, action.actor or f"policy {action.rule}".strip())
        return [*taken, *(a for a in actions if a not in known)]

    def act(self, action: Action, *, by: str) -> Action:
        """A person's action."""
        self._publish(action, by)
        return action

    def release(self, action_id: str, *, by: str, why: str = "") -> Action | None:
        """A person takes an action back; what it was."""
        action = self.gate.in_force.get(action_id)
        if action is None:
            return None
        self._reasons[f"action/{action_id}"] = why
        self._controls.delete("action", action_id, by=by)
        return action

    def _publish(self, action: Action, by: str) -> None:
        expires = action.until
        if action.kind is ActionKind.CUT_STREAMS:
            expires = self._clock() + _CUT_SECONDS
        self._controls.put("action", action.id, to_json(action), expires_at=expires, by=by)

    def put_key(self, record: KeyRecord, *, by: str) -> None:
        """A new or changed virtual key: known everywhere within a second."""
        self._controls.put("key", record.id, record.model_dump(mode="json"), by=by)

    def delete_key(self, record: KeyRecord, *, by: str) -> None:
        """Forget a virtual key for good."""
        self._controls.delete("key", record.id, by=by)

    # -- what changed, here or elsewhere ----------------------------------------

    def _action_changed(self, record: Record) -> None:
        before = self._known.get(record.name)
        if record.body is None:
            self._known.pop(record.name, None)
            self.gate.release(record.id)
            what = "release" if record.by else "expire"
        else:
            action = from_json(record.body)
            if action is None:
                return
            self._known[record.name] = record.body
            if self.gate.in_force.get(action.id) != action:
                self.gate.put(action)
            what = str(action.kind)
        if before != record.body:
            self._write(what, record, before)

    def _key_changed(self, record: Record) -> None:
        before = self._known.pop(record.name, None)
        public = None
        if record.body is None:
            self.keys.remove(record.id)
        else:
            try:
                key = KeyRecord.model_validate(record.body)
            except ValueError:
                log.error("key_unreadable", id=record.id)
                return
            self.keys.put(key)
            public = self._known[record.name] = key.public()
            if key.disabled and before is not None and not before.get("disabled"):
                self.gate.cut_streams(
                    Series("key", key.key),
                    Refusal("disabled", "Tokenweir: this key was disabled.", f"key {key.key}"),
                )
        self.gate.refresh()
        if before != public:
            self._write("key", record, before, public)

    def _write(
        self,
        what: str,
        record: Record,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None = None,
    ) -> None:
        after = after if after is not None or what == "key" else record.body
        shown = after or before or {}
        why = self._reasons.pop(record.name, "")
        entry = {
            "at": record.version / 1e6,
            "verb": what,
            "id": f"{record.name}@{record.version}",
            "target": _target(shown) or record.id,
            "actor": record.by or "time",
            "reason": why or shown.get("reason") or shown.get("disabled_reason") or "",
            "before": before,
            "after": after,
        }
        if self.audit is not None and self._tasks:
            try:
                self.audit.write(entry)
            except OSError as error:
                log.error("audit_not_written", reason=error.strerror or str(error), entry=entry)
        for listener in self._action_listeners:
            listener(entry)

    # -- background -------------------------------------------------------------

    async def _report_forever(self) -> None:
        loop, spent_until = asyncio.get_running_loop(), 0.0
        while True:
            spent_until = max(loop.time(), spent_until + 1 / _REPORTS_A_SECOND)
            await asyncio.sleep(spent_until - loop.time() - _AT_ONCE / _REPORTS_A_SECOND)
            try:
                await self.report()
            except Exception:
                log.exception("reporting_shares_failed")
                await asyncio.sleep(_BACKOFF_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def report(self) -> None:
        """One exchange with the store, and the answer to those who wait."""
        counters = self.gate.counters
        counters.replicas = self._store.replicas()
        waiters, answered = counters.take_waiters(_WAITERS), False
        try:
            await self.holds.report([c for holds, _ in waiters for c, _, _ in holds])
            answered = True
        except (StoreError, RedisError):
            pass
        finally:
            if answered and not counters.available:
                self.holds.rouse()
            counters.available = answered
            counters.release(waiters, answered=answered)
            if counters.waited_for:
                self._wake.set()

    async def _look_forever(self) -> None:
        refreshed = 0.0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._clock()
            try:
                self.gate.expire()
                if self.gate.counters.rules is not self._prepared:
                    self.prepare()
                self._tell(now)
                if now - refreshed > _REFRESH_SECONDS:
                    refreshed = now
                    self._refresh(now)
            except Exception:
                log.exception("looking_at_limits_failed")

    def _tell(self, now: float) -> None:
        for verdict in self.alerts.look(now):
            for listener in self._verdict_listeners:
                listener(verdict)
        for series, score in self.alerts.burning():
            for take in self._evidence_listeners:
                take(series, score)

    def _refresh(self, now: float) -> None:
        """Hear of budgets that only others spend, and drop counters nobody uses."""
        counters = self.gate.counters
        budgets = [c for c in counters if c.rule.kind == "budget" and c.span.name]
        if len(budgets) > _BUDGETS_HEARD:
            start = self._heard_of % len(budgets)
            self._heard_of = start + _BUDGETS_HEARD
            budgets = budgets[start : start + _BUDGETS_HEARD]
        counters.dirty.update(budgets)
        if now - self._forgot_at >= _FORGET_SECONDS:
            self._forgot_at = now
            if counters.forget_idle(now):
                self.gate.refresh()


def _target(shown: dict[str, Any]) -> str:
    """Whom an audit entry is about."""
    if "dimension" in shown:
        return f"{shown['dimension']} {shown['value']}".strip()
    return " ".join(str(shown[name]) for name in ("name", "key") if shown.get(name))
