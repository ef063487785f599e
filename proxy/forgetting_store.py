"""Forgetting one user, project or key in the store that all replicas share.

Owns: which counters and documents name somebody, and what of them stays. Must
never: touch what is in force (a block that ends because its target was forgotten
is a way round it); it is told instead.
"""

from __future__ import annotations

import re
from typing import Any, Final

from detection.types import Dimension, Series
from proxy.forgetting import Name
from proxy.store.store import Store

FORGOTTEN: Final = "[forgotten]"
_DAY: Final = 86_400.0
_FAR: Final = 2e12
_MOST: Final = 10_000

#: Kinds of documents whose bodies may name somebody, and how long each is kept.
_KINDS: Final = {
    "incident_live": 400 * _DAY,
    "incident": 400 * _DAY,
    "alert_log": 30 * _DAY,
    "alert_told": 30 * _DAY,
    "alert_page": 30 * _DAY,
    "alert_receipt": 30 * _DAY,
    "outbox": 30 * _DAY,
    "outbox_dead": 30 * _DAY,
    "silence": 30 * _DAY,
    "shadow": 7 * _DAY,
}
#: Of these, those about the name go whole; all others lose the name alone.
_ABOUT: Final = frozenset({"incident_live", "incident"})


async def in_store(store: Store, name: Name) -> dict[str, int]:
    """Erase the name in the store; what was erased, by kind. Raises StoreError."""
    erased = {"counted series": await _counters(store, name)}
    deleted = scrubbed = 0
    pattern = _word(name.value)
    for kind, keep_seconds in _KINDS.items():
        for document in await store.documents.doc_range(kind, 0.0, _FAR, limit=_MOST):
            body, hits = scrub(document.body, pattern)
            if not hits:
                continue
            if kind in _ABOUT and _is_about(document.body, name):
                await store.documents.doc_delete(kind, document.id)
                deleted += 1
            else:
                await store.documents.doc_put(
                    kind, document.id, body, at=document.at, ttl_seconds=keep_seconds
                )
                scrubbed += 1
    erased["incidents"] = deleted
    erased["mentions in incidents, alerts and silences"] = scrubbed
    return erased


def in_force(store: Store, name: Name) -> list[str]:
    """Ids of blocks and throttles on the name, which stay until they end."""
    return [
        record.id
        for record in store.controls.all("action")
        if record.body is not None
        and name.owns(str(record.body["dimension"]), str(record.body["value"]))
    ]


async def _counters(store: Store, name: Name) -> int:
    wanted = [Series(name.dimension, name.value)]
    if name.dimension == Dimension.KEY:
        pairs = await store.counters.series_list(Dimension.KEY_MODEL, limit=1_000_000)
        wanted += [
            Series(Dimension.KEY_MODEL, value)
            for value, _ in pairs
            if name.owns(Dimension.KEY_MODEL, value)
        ]
    return sum([await store.counters.forget(series) for series in wanted])


def _is_about(body: dict[str, Any], name: Name) -> bool:
    series = body.get("series")
    if isinstance(series, dict):
        return name.owns(str(series["dimension"]), str(series["value"]))
    return "dimension" in body and name.owns(str(body["dimension"]), str(body["value"]))


def _word(value: str) -> re.Pattern[str]:
    """The value where it stands by itself: `al` is not in `also`, `key_1` not in `key_12`."""
    return re.compile(rf"(?<![\w.@-]){re.escape(value)}(?![\w@-])(?!\.\w)")


def scrub(body: Any, pattern: re.Pattern[str]) -> tuple[Any, int]:
    """A document's body with the name replaced in every text, and how often it stood there.

    >>> scrub({"who": "al", "text": "al and also"}, _word("al"))
    ({'who': '[forgotten]', 'text': '[forgotten] and also'}, 2)
    """
    if isinstance(body, str):
        return pattern.subn(FORGOTTEN, body)
    if isinstance(body, list):
        parts = [scrub(part, pattern) for part in body]
        return [part for part, _ in parts], sum(hits for _, hits in parts)
    if isinstance(body, dict):
        found, total = {}, 0
        for key, value in body.items():
            clean, hits = pattern.subn(FORGOTTEN, key)
            found[clean], more = scrub(value, pattern)
            total += hits + more
        return found, total
    return body, 0
