"""Words fit to leave the process: cleaned of secrets and terminal tricks, cut to length.

Owns: plain forms of money, times and ratios, and the escaping of each medium.
Must never: let a value that a caller chose act as markup anywhere.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from proxy.redact import escape_controls, redact_text

NANO = 1_000_000_000


def clean(text: str, most: int = 300) -> str:
    """Any outside text as one harmless line.

    >>> clean("a" * 9, 5)
    'aaaa…'
    """
    text = escape_controls(redact_text(text))
    return text if len(text) <= most else text[: most - 1] + "…"


def dollars(nano_usd: float) -> str:
    """Nano-USD as people read it.

    >>> dollars(1_234_500_000_000), dollars(1_500_000)
    ('$1,234.50', '$0.0015')
    """
    amount = nano_usd / NANO
    if amount and abs(amount) < 0.01:
        return f"${amount:.4f}"
    return f"${amount:,.2f}"


def number(value: float | None) -> str:
    """A figure with no more digits than it deserves.

    >>> number(12345.678), number(0.5), number(None)
    ('12,346', '0.5', 'unknown')
    """
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def moment(ts: float) -> str:
    """Epoch seconds as a date and time in UTC."""
    return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(ts: float) -> str:
    """Epoch seconds in ISO 8601."""
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slack(text: str) -> str:
    """Escape for Slack's mrkdwn (docs.slack.dev, "Formatting message text").

    ``&``, ``<`` and ``>`` open mentions and links; the marks of bold, italic,
    strike and code are kept apart by a zero-width space.

    >>> slack("<!channel> *hi*").replace("\\u200b", "|")
    '&lt;!channel&gt; |*hi|*'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_~`])", "\u200b\\1", text).replace("@", "@\u200b")


_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>])")


def markdown(text: str) -> str:
    """Escape for Discord's and Teams' Markdown, mentions too.

    >>> markdown("@everyone **x**").replace("\\u200b", "|")
    '@|everyone \\\\*\\\\*x\\\\*\\\\*'
    """
    return _MARKDOWN.sub(r"\\\1", text).replace("@", "@\u200b")
