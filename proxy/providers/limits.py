"""What a provider says of its own limits, in header fields.

Owns: retry-after and rate-limit fields in every format that vendors use. Must
never: raise on a value that it can't read.

Fields: ``x-ratelimit-*``, ``anthropic-ratelimit-*``, ``ratelimitbysize-*`` (Mistral), and
the IETF draft's one ``ratelimit`` field (Hugging Face). Formats: Go durations (OpenAI,
Groq: ``1h7m0.764s``, ``22ms``), RFC 3339 (Anthropic), seconds (xAI, Mistral, Cerebras),
epoch seconds or milliseconds (OpenRouter), HTTP dates (``Retry-After``), -1 for "no
limit" (Azure).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

_DURATION = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_NAMES = re.compile(
    r"^(?:anthropic-|x-)?ratelimit(?:bysize)?(?:-(limit|remaining|reset))?"
    r"(?:-(requests|tokens|input-tokens|output-tokens|[a-z0-9-]+?))?(?:-(limit|remaining|reset))?$"
)
#: IETF draft: ``"default";r=50;t=30`` or ``limit=100, remaining=50, reset=30``.
_DRAFT = re.compile(r'"([^"]{1,40})"|\b(r|t|q|limit|remaining|reset)=(\d{1,15})')
_DRAFT_WORDS = {"r": "remaining", "t": "reset", "q": "limit"}
_EPOCH_FROM = 1_000_000_000
_EPOCH_MS_FROM = 100_000_000_000


class RateLimit(NamedTuple):
    """One limit of a provider, as of one answer. ``None`` is "not said"."""

    name: str
    limit: float | None
    remaining: float | None
    reset_seconds: float | None


def rate_limits(provider: str, headers: Mapping[str, str], now: float) -> list[RateLimit]:
    """The limits in an answer's header fields.

    ``name`` is ``requests``, ``tokens``, ``input_tokens``, ... as the vendor calls
    it, ``requests`` where it does not. ``now`` is epoch seconds, to turn points in
    time into seconds from now. ``provider`` only decides what a bare field counts.
    """
    found: dict[str, dict[str, float]] = {}
    for field, value in headers.items():
        if "ratelimit" not in field:
            continue
        if field == "ratelimit":
            _read_draft(value, _bare_name(provider), found)
            continue
        match = _NAMES.match(field)
        if match is None:
            continue
        what = match[1] or match[3]
        if what is None:
            continue
        name = (match[2] or _bare_name(provider)).replace("-", "_")
        number = reset_seconds(value, now) if what == "reset" else _number(value)
        if number is None or number < 0:
            continue
        found.setdefault(name, {})[what] = number
    return [
        RateLimit(name, v.get("limit"), v.get("remaining"), v.get("reset"))
        for name, v in found.items()
    ]


def _read_draft(value: str, bare: str, found: dict[str, dict[str, float]]) -> None:
    name = bare
    for quoted, word, number in _DRAFT.findall(value[:1024]):
        if quoted:
            name = quoted.replace("-", "_")
        else:
            found.setdefault(name, {})[_DRAFT_WORDS.get(word, word)] = float(number)


def _bare_name(provider: str) -> str:
    return "tokens" if provider == "mistral" else "requests"


def _number(value: str) -> float | None:
    try:
        number = float(value.split(",")[0].split(";")[0])
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def reset_seconds(value: str, now: float) -> float | None:
    """Seconds until a reset, from any of the formats; ``None`` if it is none of them."""
    value = value.strip()
    number = _number(value)
    if number is not None:
        if number >= _EPOCH_MS_FROM:
            return max(0.0, number / 1000 - now)
        if number >= _EPOCH_FROM:
            return max(0.0, number - now)
        return number if number >= 0 else None
    duration = _DURATION.fullmatch(value)
    if duration is not None and any(duration.groups()):
        days, hours, minutes, seconds, millis = (float(g or 0) for g in duration.groups())
        return days * 86_400 + hours * 3600 + minutes * 60 + seconds + millis / 1000
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)


def retry_after(headers: Mapping[str, str], now: float | None) -> float | None:
    """Seconds that the provider asks to wait; ``retry-after-ms`` is the finer word.

    ``now`` (epoch seconds) is needed for dates; without it they are not told.

    Azure rounds ``retry-after`` up to whole seconds and sends the true value,
    which may be 0, in ``retry-after-ms``.
    """
    millis = headers.get("retry-after-ms") or headers.get("x-ms-retry-after-ms")
    if millis is not None:
        number = _number(millis)
        if number is not None and number >= 0:
            return number / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        return number if number >= 0 else None
    if now is None:
        return None
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
