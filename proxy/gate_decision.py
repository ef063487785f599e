"""What admission answers.

Owns: the value that travels with a call from admission to settlement. Must
never: decide anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detection.types import Series
from proxy.providers.base import Refusal

if TYPE_CHECKING:
    from detection.budget import Account
    from proxy.gate_actions import ActiveAction
    from proxy.gate_estimate import Estimate
    from proxy.gate_rules import CallCap, Counter

#: A rule's counter, the account of the period, and what was reserved there.
Hold = tuple["Counter", "Account", int]

NO_HEADERS: tuple[tuple[str, str], ...] = ()


class Decision:
    """One answer of the gate.

    ``kind`` is ``allow``, ``downgrade``, ``throttle``, ``block``, ``forbidden``,
    ``unavailable`` or ``wait`` (a budget's share must be fetched first, see
    :meth:`proxy.gate.Gate.wait`). ``would`` is what shadow mode would have done.
    ``model`` is set on a downgrade. ``headers`` go on the answer to the client.
    """

    __slots__ = (
        "cap",
        "estimate",
        "headers",
        "holds",
        "kind",
        "model",
        "output_bytes",
        "output_tokens",
        "probe",
        "refusal",
        "rule",
        "settled",
        "would",
        "would_of",
    )

    def __init__(
        self,
        kind: str,
        *,
        refusal: Refusal | None = None,
        rule: str = "",
        model: str | None = None,
        headers: tuple[tuple[str, str], ...] = NO_HEADERS,
    ) -> None:
        self.kind = kind
        self.refusal = refusal
        self.rule = rule
        self.would: str | None = None
        #: The rule and series behind ``would``.
        self.would_of: tuple[str, Series] | None = None
        self.model = model
        self.headers = headers
        self.holds: list[Hold] = []
        self.probe: ActiveAction | None = None
        #: What was reserved, where tokens or money are counted.
        self.estimate: Estimate | None = None
        self.cap: CallCap | None = None
        self.output_bytes = 0
        self.output_tokens = 0
        self.settled = False

    def might(self, what: str, rule: str, series: Series) -> None:
        """Note what shadow mode would have done; the first word stands."""
        if self.would is None:
            self.would, self.would_of = what, (rule, series)

    @property
    def reservation_nano_usd(self) -> int:
        """What is set aside for the call, the largest over all budgets."""
        costs = [amount for counter, _, amount in self.holds if counter.rule.metric == "cost"]
        return max(costs, default=0)

    def __repr__(self) -> str:
        return f"Decision({self.kind!r}, rule={self.rule!r}, would={self.would!r})"


#: Most calls: no rule applies, nothing to settle. Shared; never changed.
ALLOW = Decision("allow")
