"""What a call may cost, before it is made.

Owns: the upper bound where the client gave one, and what was learned of
tokens per byte and answer length where it didn't. Must never: price a call by
itself; the rates are handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from detection.types import Observation
from proxy.bounded import make_room
from proxy.context import RequestContext

_MOST_LEARNED = 20_000
_FIRST_OUTPUT_TOKENS = 2048
_SAMPLES = 5
_DECAY = 0.995
_OUTPUT_TOKENS_PER_BYTE = 0.3
_new = tuple.__new__


@dataclass(frozen=True, slots=True)
class Rates:
    """Dearest rates of a model in nano-USD: per input token, output token, and call."""

    input: int
    output: int
    call: int = 0


class Estimate(NamedTuple):
    """``bounded``: no call that keeps to its ``max_tokens`` uses more than this."""

    tokens: int
    cost: int
    input_cost: int
    output_tokens: int
    output_rate: int
    bounded: bool
    learn: tuple[str, str]
    body_bytes: int


class _Learned:
    __slots__ = ("count", "input_per_byte", "mean_output", "peak_output", "tokens_per_byte")

    def __init__(self) -> None:
        self.count = 0
        self.input_per_byte = 0.0
        self.mean_output = 0.0
        self.peak_output = 0.0
        self.tokens_per_byte = _OUTPUT_TOKENS_PER_BYTE


class Estimator:
    """Estimates calls and learns from what they were.

    ``rates(provider, model, project)`` gives the dearest rates that can apply.
    """

    def __init__(self, rates: Callable[[str, str | None, str | None], Rates]) -> None:
        self._rates = rates
        self._learned: dict[tuple[str, str], _Learned] = {}

    def estimate(self, ctx: RequestContext) -> Estimate:
        """What to reserve for a call.

        A token is at least a byte of a JSON body, so its size bounds the prompt;
        where more tokens than bytes were once seen (pictures and documents by
        reference, stored conversations) that ratio is used with half again.
        """
        name = (ctx.agent or ctx.key or "", ctx.model or "")
        rates_of = self._rates
        rates = rates_of(ctx.provider, ctx.model, ctx.project)
        if not ctx.metered:
            return Estimate(0, 0, 0, 0, rates.output, True, name, ctx.facts.body_bytes)
        learned = self._learned.get(name)
        facts = ctx.facts
        ratio = 1.0
        known = learned is not None and learned.count >= _SAMPLES
        most = facts.max_output_tokens
        if learned is not None and learned.input_per_byte > 1.0:
            ratio = learned.input_per_byte * 1.5
        elif known and most is None and learned is not None:
            ratio = min(1.0, learned.input_per_byte * 1.25)
        body_bytes = facts.body_bytes
        input_tokens = int(body_bytes * ratio) + 8
        if most is not None:
            output_tokens = most * facts.choices if facts.choices > 1 else most
        elif known and learned is not None:
            output_tokens = int(max(learned.peak_output, 2 * learned.mean_output) * 1.1) + 16
        else:
            output_tokens = _FIRST_OUTPUT_TOKENS * max(1, facts.choices)
        input_cost = input_tokens * rates.input + rates.call
        # In the order of its fields: by name it takes three times as long.
        return _new(
            Estimate,
            (
                input_tokens + output_tokens,
                input_cost + output_tokens * rates.output,
                input_cost,
                output_tokens,
                rates.output,
                most is not None,
                name,
                body_bytes,
            ),
        )

    def output_tokens(self, name: tuple[str, str], output_bytes: int) -> int:
        """Tokens that an answer of so many bytes of text likely has."""
        learned = self._learned.get(name)
        ratio = learned.tokens_per_byte if learned is not None else _OUTPUT_TOKENS_PER_BYTE
        return int(output_bytes * ratio)

    def learn(self, estimate: Estimate, output_bytes: int, done: Observation) -> None:
        """Take what the provider reported. Estimates teach nothing."""
        given, _, _, tokens, _, _, source = done[15:22]
        if source != "reported":
            return
        _, _, _, _, _, _, name, body_bytes = estimate
        learned = self._learned.get(name)
        if learned is None:
            make_room(self._learned, _MOST_LEARNED)
            learned = self._learned[name] = _Learned()
        learned.count += 1
        if given is not None and body_bytes > 0:
            seen, before = given / body_bytes, learned.input_per_byte * _DECAY
            learned.input_per_byte = seen if seen > before else before
        if tokens is not None:
            before = learned.peak_output * _DECAY
            learned.peak_output = float(tokens) if tokens > before else before
            count = learned.count
            learned.mean_output += (tokens - learned.mean_output) / (count if count < 50 else 50)
            if output_bytes >= 64:
                ratio = tokens / output_bytes
                learned.tokens_per_byte += 0.1 * (ratio - learned.tokens_per_byte)
