"""Keeps secrets and terminal tricks out of everything that is written down.

Owns: the patterns of credentials, and the functions that take them out of
text, URLs and headers; the structlog processors built on them. Must never:
log, raise on odd input, or let a credential through because its vendor is new
(long random-looking tokens go too).

Used at the edges where text leaves the process: logs, errors, alerts, pages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final

import structlog

MASK: Final = "[redacted]"

_SECRET_HEADERS: Final = frozenset(
    {
        "authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key",
        "cookie", "set-cookie", "x-amz-security-token", "x-amz-signature", "x-auth-token",
        "x-portkey-api-key", "helicone-auth", "cf-aig-authorization",
        "ocp-apim-subscription-key", "x-csrf-token", "x-litellm-api-key", "x-vault-token",
        "sec-websocket-protocol",
    }
)  # fmt: skip

_NAMES_OF_SECRETS: Final = (
    r"(?:[a-z0-9_-]{0,48}[_-])?(?:api[_-]?key|apikey|access[_-]?key|secret|secret[_-]?key|token|password"
    r"|passwd|passphrase|credential|authorization|signature|sig|private[_-]?key|client[_-]?secret"
    r"|webhook[_-]?url|routing[_-]?key)"
)

#: ``name=value`` pairs of a query whose value is a credential.
_QUERY = re.compile(
    rf"(?i)([?&;](?:key|code|{_NAMES_OF_SECRETS}|x-amz-(?:signature|credential|security-token))=)[^&#\s\"']+"
)
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^/\s:@]{0,256}:[^/\s@]{1,512}@")
_WEBHOOK_PATH = re.compile(
    r"(?i)(https?://(?:hooks\.slack\.com/(?:services|workflows|triggers)|discord(?:app)?\.com/api/webhooks"
    r"|[a-z0-9.-]*webhook\.office\.com/webhookb2|[a-z0-9.-]*\.logic\.azure\.com)/)\S+"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest)\s+[A-Za-z0-9+/=._~:-]{6,}")
_NAMED = re.compile(
    rf"(?i)(?<![a-z0-9_-])({_NAMES_OF_SECRETS})([\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?)(?!\[redacted)([^\s\"',;&}}]{{6,}})"
)
_VENDOR = re.compile(
    r"(?:"
    r"\b(?:sk|pk|rk|gsk|xai|pplx|r8|hf|fw|tw|twa|csk|nvapi|sess|ek|tgp|whsec|npg|dop)[-_][A-Za-z0-9_-]{12,}"
    r"|\bAIza[A-Za-z0-9_-]{20,}|\bya29\.[A-Za-z0-9._-]{10,}"
    r"|\b(?:AKIA|ASIA|ABSK|ABIA)[A-Za-z0-9+/=]{12,}"
    r"|\bbedrock-api-key-[A-Za-z0-9+/=_-]{8,}"
    r"|\bgh[opusr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,2048}(?:\.[A-Za-z0-9_-]*)?"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r")"
)
#: A token of no known vendor: 32 or more characters with digits and letters.
_OPAQUE = re.compile(
    r"(?<![A-Za-z0-9_./+-])(?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{32,}"
)
#: What is a credential beyond doubt, also where a person chose the text.
_CERTAIN = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\b(?:gsk|xai|r8|hf|fw|tw)[-_](?=[A-Za-z_-]{0,48}[0-9])[A-Za-z0-9_-]{24,}"
    r"|\bAIza[A-Za-z0-9_-]{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\bgh[opusr]_[A-Za-z0-9]{20,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}|\bxox[abeprs]-[A-Za-z0-9-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}|(?i:\bbearer )\S{8,}"
)
#: Without any of these beginnings there is none; much quicker to tell.
_BEGINNINGS: Final = (
    "sk-", "sk_", "xai", "r8", "hf", "fw", "tw", "AIza", "AKIA", "ASIA", "gh", "glpat-", "xox",
    "eyJ", "earer ", "EARER ",
)  # fmt: skip
_UUID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")

_LONGEST_TEXT: Final = 16_384
_ESCAPES: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t",
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x200B, 0x2010),
                                           *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)},
}  # fmt: skip
_NEEDS_ESCAPE = re.compile("[" + "".join(map(re.escape, map(chr, _ESCAPES))) + "]")


def escape_controls(text: str) -> str:
    r"""Make control characters, ANSI codes, line breaks and bidi marks visible.

    >>> escape_controls("a\x1b[31mred\nb")
    'a\\x1b[31mred\\nb'
    """
    return text.translate(_ESCAPES) if _NEEDS_ESCAPE.search(text) else text


def redact_text(text: str) -> str:
    """Take credentials out of any text; at most 16 KiB of it is kept.

    >>> redact_text("Incorrect API key provided: sk-proj-abcdefghijklmnop")
    'Incorrect API key provided: [redacted]'
    >>> redact_text("key_0123456789ab agent=support")
    'key_0123456789ab agent=support'
    """
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT] + "…"
    if len(text) < 8:
        return text
    text = _WEBHOOK_PATH.sub(rf"\1{MASK}", text)
    text = _USERINFO.sub(rf"\1{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _VENDOR.sub(MASK, text)
    text = _NAMED.sub(rf"\1\2{MASK}", text)
    return _OPAQUE.sub(_mask_opaque, text)


def _mask_opaque(match: re.Match[str]) -> str:
    return match[0] if _UUID.fullmatch(match[0]) else MASK


@lru_cache(maxsize=4096)
def clean_name(name: str) -> str:
    """The name that a caller gives itself, unless it put a credential there.

    Narrower than :func:`redact_text`: random-looking names, such as of sessions, stay.

    >>> clean_name("support-triage"), clean_name("sk-proj-abcdefghijklmnop")
    ('support-triage', '[redacted]')
    """
    if len(name) < 16 or not any(begin in name for begin in _BEGINNINGS):
        return name
    return MASK if _CERTAIN.search(name) else name


def redact_url(url: str) -> str:
    """A URL without user info, secret query values, or a webhook's secret path.

    >>> redact_url("https://x.test/v1/models?key=AIzaSecret&alt=sse")
    'https://x.test/v1/models?key=[redacted]&alt=sse'
    """
    return redact_text(url)


def redact_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Headers fit to be shown: known credential headers masked, others cleaned.

    >>> redact_headers({"Authorization": "Bearer abc", "Accept": "*/*"})
    [('Authorization', '[redacted]'), ('Accept', '*/*')]
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [
        (name, MASK if name.lower() in _SECRET_HEADERS else escape_controls(redact_text(value)))
        for name, value in pairs
    ]


_SECRET_FIELD = re.compile(rf"(?i)\A(?:key|{_NAMES_OF_SECRETS}|cookie)\Z")
#: Fields that count or name something although they sound like a secret.
_HARMLESS_FIELD = re.compile(r"(?i)tokens\Z|_tokens_|\Akey\Z")


def redact_value(value: Any, name: str = "", depth: int = 0) -> Any:
    """Redact strings anywhere in a structure of dicts, lists and tuples."""
    if isinstance(value, str):
        if name and _SECRET_FIELD.match(name) and not _HARMLESS_FIELD.search(name):
            return MASK
        return escape_controls(redact_text(value))
    if isinstance(value, bytes):
        return redact_value(value.decode("utf-8", "replace"), name, depth)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= 6:
        return MASK
    if isinstance(value, Mapping):
        return {redact_value(str(k)): redact_value(v, str(k), depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact_value(item, name, depth + 1) for item in value]
    return redact_value(str(value), name, depth)


_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def redact_processor(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor: the last one before the renderer."""
    for name, value in list(event.items()):
        if name == "exception" and isinstance(value, str):
            # A traceback keeps its lines; each is indented, so that none can pass for an event.
            lines = (str(redact_value(line)) for line in value.splitlines())
            event[name] = "\n".join(f"  {line}" for line in lines)
        elif name != "trace_id" or not _TRACE_ID.fullmatch(str(value)):
            event[name] = redact_value(value, name)
    return event


def configure_logging(*, json_lines: bool, level: int = 20, colors: bool = False) -> None:
    """Set structlog up for the process, on stderr: redacted, one event a line.

    Parameters
    ----------
    json_lines
        Machine-readable lines; otherwise a short human form.
    level
        The least level written, as in :mod:`logging` (20 is INFO).
    colors
        Whether the human form may use colour (never decided from input).
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_processor,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
