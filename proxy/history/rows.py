"""What an importer yields, and how text becomes its numbers.

Owns: the row kinds (one call, an aggregate, a rejected row), the coercions that
every importer shares, and the ids made of content. Must never: guess a value
that is not there (unknown is ``None``), or keep a credential.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

import orjson

from detection.types import Observation

HOUR_SECONDS: Final = 3600.0
DAY_SECONDS: Final = 86400.0
NANO: Final = 10**9

#: Text that is a provider's credential and not the name of one.
_CREDENTIAL = re.compile(
    r"^(?:Bearer\s+)?(?:sk|pk|rk|gsk|xai|pplx|r8|hf|tw|nvapi|sess)[-_][A-Za-z0-9_-]{16,}$"
    r"|^AIza[A-Za-z0-9_-]{20,}$|^(?:AKIA|ASIA|ABSK)[A-Za-z0-9+/=]{12,}$"
)


class BadRowError(ValueError):
    """A row that can't be read; the message names the field and says why."""


class Aggregate(NamedTuple):
    """What happened within ``[start, start + seconds)`` under one set of names.

    ``requests`` is ``None`` where the export does not count calls (Anthropic's
    usage, every cost export). ``basis`` is ``usage`` where tokens were counted
    and ``cost`` where only money was, so that the two exports of one vendor are
    never added up.
    """

    start: float
    seconds: float
    id: str
    basis: str
    key: str | None = None
    agent: str | None = None
    project: str | None = None
    user: str | None = None
    tags: Mapping[str, str] = {}
    provider: str | None = None
    endpoint: str | None = None
    model: str | None = None
    requests: int | None = None
    errors: int | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano_usd: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row set aside: where it stood, why, and what it held."""

    line: int
    reason: str
    data: Any = None


Row = Observation | Aggregate


def stand_in(row: Aggregate) -> Observation:
    """A call with an aggregate's names and none of its counts."""
    return Observation(
        ts=row.start,
        id=row.id,
        key=row.key,
        agent=row.agent,
        project=row.project,
        user=row.user,
        tags=row.tags,
        provider=row.provider,
        endpoint=row.endpoint,
        model=row.model,
    )


@dataclass(frozen=True, slots=True)
class Options:
    """What the person importing knows and the file does not say.

    ``columns`` maps our field names to the file's columns (plain CSV);
    ``period_seconds`` says how much time one of its rows covers;
    ``key_name`` turns a raw credential into the name that live calls carry;
    ``ai_services`` is a pattern of the service names of a cloud bill to read.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    period_seconds: float | None = None
    provider: str | None = None
    timezone_offset_seconds: float = 0.0
    key_name: Callable[[str], str] | None = None
    ai_services: str = (
        r"bedrock|openai|cognitive services|ai services|foundry|vertex|gemini|generative|claude"
    )


def text(value: Any) -> str | None:
    """A short text, ``None`` where empty; a credential becomes its hash.

    >>> text(" a "), text(""), text(None), text(3)
    ('a', None, None, '3')
    """
    if value is None:
        return None
    shown = value if isinstance(value, str) else str(value)
    shown = shown.strip()
    if not shown:
        return None
    return _hashed(shown) if _CREDENTIAL.match(shown) else shown[:256]


def whole(value: Any, name: str) -> int | None:
    """A count, ``None`` where empty. Raises BadRowError on a negative or a fraction.

    >>> whole("1200", "n"), whole("3.0", "n"), whole("", "n")
    (1200, 3, None)
    """
    if value is None or value == "":
        return None
    if type(value) is int:
        number = value
    else:
        try:
            parsed = float(value)
        except (TypeError, ValueError):
            raise BadRowError(f"{name}: {_shown(value)} is not a number") from None
        if not math.isfinite(parsed) or parsed != int(parsed):
            raise BadRowError(f"{name}: {_shown(value)} is not a whole number")
        number = int(parsed)
    if number < 0:
        raise BadRowError(f"{name}: {number} is below zero")
    if number > 10**15:
        raise BadRowError(f"{name}: {number} is beyond any count")
    return number


def real(value: Any, name: str) -> float | None:
    """A finite number of at least zero, ``None`` where empty."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRowError(f"{name}: {_shown(value)} is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise BadRowError(f"{name}: {_shown(value)} is not a number of at least zero")
    return number


def nano_usd(value: Any, name: str, *, per_dollar: int = 1) -> int | None:
    """Money as integer nano-USD, rounded up; ``per_dollar`` 100 reads cents.

    >>> nano_usd("0.0000000001", "cost"), nano_usd("123.5", "cents", per_dollar=100)
    (1, 1235000000)
    """
    if value is None or value == "":
        return None
    try:
        amount = Decimal(str(value).strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        raise BadRowError(f"{name}: {_shown(value)} is not an amount") from None
    if not amount.is_finite() or amount < 0 or amount > 10**12:
        raise BadRowError(f"{name}: {_shown(value)} is not an amount of at least zero")
    return math.ceil(amount * NANO / per_dollar)


def seconds_since_epoch(value: Any, name: str, offset_seconds: float = 0.0) -> float | None:
    """A time as epoch seconds, ``None`` where empty.

    Reads epoch seconds, milliseconds and microseconds, and ISO 8601 with a
    space or a ``T``; a time without a zone is taken ``offset_seconds`` east of UTC.

    >>> seconds_since_epoch("2025-08-01T00:00:00Z", "ts")
    1754006400.0
    >>> seconds_since_epoch(1754006400123, "ts")
    1754006400.123
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, str) and not _NUMBER.match(value):
        try:
            moment = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
        except ValueError:
            raise BadRowError(f"{name}: {_shown(value)} is not a time") from None
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise BadRowError(f"{name}: {_shown(value)} is not a time") from None
        for _ in range(2):
            if number > 10**11:
                number /= 1000
        if not 946684800 <= number <= 4102444800:
            raise BadRowError(f"{name}: {_shown(value)} is not a time of this century")
        return number
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - offset_seconds
    return moment.timestamp()


_NUMBER = re.compile(r"^\s*\d+(?:\.\d+)?\s*$")


def key_of(value: Any, options: Options) -> str | None:
    """The name of a key; a credential in its place gets the name that live calls carry."""
    if options.key_name is not None and isinstance(value, str):
        candidate = value.strip()
        if _CREDENTIAL.match(candidate):
            return options.key_name(candidate.removeprefix("Bearer ").strip())
    return text(value)


def _hashed(credential: str) -> str:
    secret = credential.removeprefix("Bearer ").strip()
    return "key_" + hashlib.blake2b(secret.encode(), digest_size=6).hexdigest()


def tags_of(value: Any) -> dict[str, str]:
    """Tags from an object, or from a list whose bare words become ``word=true``."""
    if isinstance(value, Mapping):
        return {
            str(name)[:64]: str(held)[:128]
            for name, held in list(value.items())[:16]
            if isinstance(held, (str, int, float, bool))
        }
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        found: dict[str, str] = {}
        for word in list(value)[:16]:
            name, _, held = str(word).partition("=" if "=" in str(word) else ":")
            found[name.strip()[:64]] = held.strip()[:128] or "true"
        return found
    return {}


def content_id(*parts: Any) -> str:
    """An id that the same row gets in whatever file it stands.

    >>> content_id("a", 1) == content_id("a", 1) != content_id("a1")
    True
    """
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(b"\x00" if part is None else repr(part).encode("utf-8", "replace"))
        digest.update(b"\x1f")
    return "imp_" + digest.hexdigest()


def required(value: Any, name: str) -> Any:
    """The value, or a BadRowError that names the missing field."""
    if value is None:
        raise BadRowError(f"{name}: missing")
    return value


def _shown(value: Any) -> str:
    return repr(value if len(str(value)) <= 40 else str(value)[:40] + "…")


def object_of(value: Any, name: str) -> dict[str, Any]:
    """A nested object, also where a CSV cell holds it as JSON; empty where absent."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise BadRowError(f"{name}: {_shown(value)} is not JSON") from None
    if isinstance(value, list) and all(isinstance(item, tuple) for item in value):
        value = dict(value)
    if not isinstance(value, dict):
        raise BadRowError(f"{name}: not an object")
    return value


#: How model names begin, and whose they are.
_VENDORS: Final = (
    ("claude", "anthropic"),
    ("gpt-", "openai"),
    ("chatgpt", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding", "openai"),
    ("gemini", "gcp.gemini"),
    ("mistral", "mistral_ai"),
    ("codestral", "mistral_ai"),
    ("ministral", "mistral_ai"),
    ("deepseek", "deepseek"),
    ("grok", "x_ai"),
)


def provider_of(model: str | None) -> str | None:
    """Whose a model is, by its name alone; ``None`` where that says nothing.

    >>> provider_of("claude-opus-4-1"), provider_of("house-model")
    ('anthropic', None)
    """
    if model is None:
        return None
    lowered = model.lower()
    return next((vendor for start, vendor in _VENDORS if lowered.startswith(start)), None)
