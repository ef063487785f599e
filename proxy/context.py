"""Who calls what: the identity of one request.

Owns: the value that the pump fills and that gate, meter and ledger read. Must
never: hold a credential, or the text of a prompt or an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from detection.types import TOTAL, Dimension, Series, pair
from proxy.providers.base import NO_FACTS, RequestFacts


@dataclass
class RequestContext:
    """One call, named. ``key`` is a fingerprint, ``client`` a keyed hash.

    Without slots: calls of one head share what it says, which is copied at once.

    ``virtual_key`` is the id of a key that the proxy issued, ``None`` where the
    client brought its provider's own. ``received_at`` is monotonic seconds, ``trace``
    the W3C ``traceparent`` that the call came with.
    """

    id: str
    provider: str
    upstream: str
    wire: str
    endpoint: str
    key: str | None = None
    agent: str | None = None
    project: str | None = None
    user: str | None = None
    session: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    client: str | None = None
    model: str | None = None
    stream: bool = False
    metered: bool = True
    facts: RequestFacts = field(default_factory=lambda: NO_FACTS)
    virtual_key: str | None = None
    received_at: float = 0.0
    trace: str | None = None
    _series: tuple[Series, ...] | None = None

    @property
    def series(self) -> tuple[Series, ...]:
        """Every series that this call counts in, the total first."""
        if self._series is None:
            self._series = series_of(self)
        return self._series


def series_of(call: RequestContext) -> tuple[Series, ...]:
    """The series of a call, from what is known of it."""
    found = [TOTAL, Series(Dimension.PROVIDER, call.provider)]
    key, agent, model = call.key, call.agent, call.model
    if model:
        found.append(Series(Dimension.MODEL, model))
    if key:
        found.append(Series(Dimension.KEY, key))
        if model:
            found.append(Series(Dimension.KEY_MODEL, pair(key, model)))
    if agent:
        found.append(Series(Dimension.AGENT, agent))
        if model:
            found.append(Series(Dimension.AGENT_MODEL, pair(agent, model)))
    if call.project:
        found.append(Series(Dimension.PROJECT, call.project))
    found.append(Series(Dimension.ENDPOINT, call.endpoint))
    if call.user:
        found.append(Series(Dimension.USER, call.user))
    if call.session:
        found.append(Series(Dimension.SESSION, call.session))
    for name, value in call.tags.items():
        found.append(Series(Dimension.TAG, f"{name}={value}"))
    return tuple(found)
