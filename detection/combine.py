"""Scores become verdicts: tiers, families of evidence, hysteresis, self-trust.

Owns: what is under way on each series and what was already told of it. Must
never: act, or let volume alone reach an emergency.

An emergency needs a limit the user set, or two families:

- a repeated tool call with volume, errors or a budget's burn;
- a repeated plain prompt with errors or a budget's burn (volume is not enough);
- failing calls with volume;
- volume at critical with a new client that makes most of the calls, or a budget's burn.

The total, a provider, a model or an endpoint reach it by a limit only.
"""

from __future__ import annotations

from detection.settings import DetectionSettings
from detection.state import WIDE, Evidence, SeriesState, View
from detection.surge import volume_is_evidence
from detection.types import Family, Score, Series, Signal, Tier, Verdict

#: Seconds that evidence holds after it was last renewed.
HOLD: dict[Signal, float] = {
    Signal.VOLUME_SURGE: 300.0,
    Signal.SPEND_SPIKE: 900.0,
    Signal.COST_PER_REQUEST: 900.0,
    Signal.OUTPUT_TOKENS: 900.0,
    Signal.FINISH_REASON_MIX: 3600.0,
    Signal.NEW_MODEL: 3600.0,
    Signal.NEW_AGENT: 3600.0,
    Signal.NEW_KEY_MODEL: 3600.0,
    Signal.NEW_CLIENT: 3600.0,
    Signal.BUDGET_BURN: 900.0,
    Signal.DRIFT: 2 * 86400.0,
    Signal.PEER_OUTLIER: 2 * 86400.0,
}
HOLD_DEFAULT = 120.0

#: Signals that learn a normal, and so may cry wolf.
STATISTICAL = frozenset(
    (
        Signal.VOLUME_SURGE,
        Signal.SPEND_SPIKE,
        Signal.COST_PER_REQUEST,
        Signal.OUTPUT_TOKENS,
        Signal.FINISH_REASON_MIX,
        Signal.DRIFT,
        Signal.PEER_OUTLIER,
    )
)

#: Which signal an emergency of several families is told under.
LEADS = (
    Signal.HARD_LIMIT,
    Signal.AGENT_LOOP,
    Signal.RETRY_STORM,
    Signal.ERROR_RATE,
    Signal.VOLUME_SURGE,
    Signal.SPEND_SPIKE,
    Signal.BUDGET_BURN,
)

#: Share of the calls since it came that a newcomer must make to stand beside volume.
NEWCOMER_SHARE = 0.5
#: How the names of newcomers that are client networks begin.
NEW_CLIENT = "client:"
#: Times the usual level that makes volume unusual beside a newcomer.
NEWCOMER_RATIO = 3.0
REVIEW_CALLS = 12


class Combiner:
    """Keeps the evidence of each series and tells what is new, worse, or over."""

    def __init__(self, settings: DetectionSettings) -> None:
        self._settings = settings
        self._days = settings.learning.days
        self._trust_seconds = settings.learning.self_trust_days * 86400.0

    def add(self, view: View, score: Score) -> list[Verdict]:
        """Take one score; returns verdicts that are new or raised."""
        state, now, signal = view.state, view.now, score.signal
        tier = min(score.tier, score.ceiling)
        ceiling = self._settings.rule(signal).ceiling
        if ceiling is not None:
            tier = min(tier, ceiling.tier)
        if state.wolf.get(signal, 0.0) > now:
            tier = min(tier, Tier.INFO)
        evidence = state.evidence.get(signal)
        if evidence is None:
            since = now if score.since is None else score.since
            evidence = state.evidence[signal] = Evidence(score, tier, since, now)
        else:
            evidence.score, evidence.tier, evidence.last = score, tier, now
        told: list[Verdict] = []
        families = self._emergency(view)
        if families:
            lead = next(s for s in LEADS if s in state.evidence)
            told += self._tell(state, lead, Tier.EMERGENCY, families, now)
            if lead is signal:
                return told
        return told + self._tell(state, signal, tier, frozenset((score.family,)), now)

    def review(self, view: View) -> list[Verdict]:
        """Raise a new client to critical where it makes most of an unusual volume.

        Asked while it is new; looks again after a few calls.
        """
        state = view.state
        oldest = view.now - HOLD[Signal.NEW_CLIENT]
        if not any(
            entry[0] >= oldest and name.startswith(NEW_CLIENT)
            for name, entry in (state.novel or {}).items()
        ):
            return []
        view.room_calls = min(view.room_calls, REVIEW_CALLS)
        if not self._newcomer(view):
            return []
        if not volume_is_evidence(self._settings, view, NEWCOMER_RATIO):
            return []
        evidence = state.evidence.get(Signal.NEW_CLIENT)
        if evidence is None:
            return []
        evidence.tier = max(evidence.tier, Tier.CRITICAL)
        families = frozenset((Family.NOVELTY, Family.VOLUME))
        return self._tell(state, Signal.NEW_CLIENT, Tier.CRITICAL, families, view.now)

    def _tell(
        self,
        state: SeriesState,
        signal: Signal,
        tier: Tier,
        families: frozenset[Family],
        now: float,
    ) -> list[Verdict]:
        evidence = state.evidence[signal]
        if tier <= evidence.told:
            return []
        evidence.told = tier
        evidence.worst = max(evidence.worst, tier)
        learning = signal in STATISTICAL and state.learning(self._days)
        return [verdict(state.series, evidence, tier, families, now, learning=learning)]

    def _emergency(self, view: View) -> frozenset[Family]:
        evidence = view.state.evidence
        if Signal.HARD_LIMIT in evidence and (evidence[Signal.HARD_LIMIT].tier is Tier.EMERGENCY):
            return frozenset((Family.LIMIT,))
        if view.state.series.dimension in WIDE:
            return frozenset()
        loop = evidence.get(Signal.AGENT_LOOP)
        own = loop is not None and bool(loop.score.detail.get("own_volume"))
        burn = Signal.BUDGET_BURN in evidence
        failing = any(
            e is not None and e.tier >= Tier.CRITICAL and e.score.ceiling >= Tier.EMERGENCY
            for e in (evidence.get(Signal.ERROR_RATE), evidence.get(Signal.RETRY_STORM))
        )
        found: set[Family] = set()
        # Twelve repeats in two minutes are as soon a poller as a loop, and no evidence
        # beside bursts or a budget's burn that other calls of its owner make.
        if (
            loop is not None
            and (own or loop.tier >= Tier.CRITICAL)
            and (loop.score.ceiling is Tier.EMERGENCY or failing or burn)
        ):
            found.add(Family.REPETITION)
        if failing:
            found.add(Family.ERRORS)
        if burn:
            found.add(Family.BUDGET)
        surge = self._surging(view)
        strong = Family.REPETITION in found or Family.ERRORS in found
        if surge or own or (strong and volume_is_evidence(self._settings, view)):
            found.add(Family.VOLUME)
        if surge and self._newcomer(view):
            found.add(Family.NOVELTY)
        return frozenset(found) if len(found) >= 2 else frozenset()

    def _surging(self, view: View) -> bool:
        return any(
            e is not None and e.tier >= Tier.CRITICAL
            for e in (
                view.state.evidence.get(Signal.VOLUME_SURGE),
                view.state.evidence.get(Signal.SPEND_SPIKE),
            )
        )

    def _newcomer(self, view: View) -> bool:
        state = view.state
        for name, (since, calls, start) in (state.novel or {}).items():
            # A new model with many calls is how launches and load tests look.
            if not name.startswith(NEW_CLIENT):
                continue
            if view.now - since <= HOLD[Signal.NEW_CLIENT]:
                share = calls / max(1.0, state.window.calls - start)
                if share >= NEWCOMER_SHARE:
                    return True
        return False

    def expire(self, state: SeriesState, now: float) -> list[Verdict]:
        """End what was not renewed; a statistical alarm that led nowhere costs trust."""
        told: list[Verdict] = []
        emergency = any(e.worst is Tier.EMERGENCY for e in state.evidence.values())
        for signal in list(state.evidence):
            evidence = state.evidence[signal]
            if now - evidence.last <= HOLD.get(signal, HOLD_DEFAULT):
                continue
            del state.evidence[signal]
            if evidence.told is Tier.NONE:
                continue
            sent = not state.learning(self._days)
            if (
                signal in STATISTICAL
                and evidence.worst is Tier.CRITICAL
                and sent
                and (not emergency)
            ):
                self.cried_wolf(state, signal, now)
            family = frozenset((evidence.score.family,))
            told.append(verdict(state.series, evidence, Tier.NONE, family, now, learning=False))
        if state.profile is not None and not state.evidence:
            state.profile.settle(learn=not emergency)
        for signal in [s for s, until in state.wolf.items() if until <= now]:
            del state.wolf[signal]
        return told

    def cried_wolf(self, state: SeriesState, signal: Signal, now: float) -> None:
        """Hold a signal of a series at info for the days of the settings."""
        state.wolf[signal] = now + self._trust_seconds


def verdict(
    series: Series,
    evidence: Evidence,
    tier: Tier,
    families: frozenset[Family],
    now: float,
    *,
    learning: bool,
) -> Verdict:
    """The verdict that evidence stands for at a tier."""
    score = evidence.score
    weak = score.signal is Signal.AGENT_LOOP and score.ceiling < Tier.EMERGENCY
    return Verdict(
        now,
        score.signal,
        tier,
        series,
        families,
        score.observed,
        score.baseline,
        score.ratio,
        score.p_value,
        score.e_value,
        score.window_seconds,
        evidence.since,
        blockable=tier is Tier.EMERGENCY or not weak,
        learning=learning,
        detail=score.detail,
    )
