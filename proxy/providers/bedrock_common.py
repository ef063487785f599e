"""What all of Bedrock's answers share.

Owns: the counts in header fields, error types, exceptions in streams, and Converse's
usage object. Must never: await or raise.
"""

from __future__ import annotations

from typing import Any

from detection.types import CallError
from proxy.providers.base import Headers
from proxy.providers.reading import Reader, count, items, part, text

_HEADER = "x-amzn-bedrock-"


def converse_counts(native: dict[str, Any]) -> dict[str, Any]:
    """The counts of a ``TokenUsage``; Nova spells the cache's members differently."""
    fresh = count(native.get("inputTokens"))
    read = count(native.get("cacheReadInputTokens", native.get("cacheReadInputTokenCount")))
    written = count(native.get("cacheWriteInputTokens", native.get("cacheWriteInputTokenCount")))
    found = {
        "input_tokens": None if fresh is None else fresh + (read or 0) + (written or 0),
        "output_tokens": count(native.get("outputTokens")),
        "cached_input_tokens": read,
        "cache_write_tokens": written,
        "total_tokens": count(native.get("totalTokens")),
    }
    for entry in items(native, "cacheDetails"):
        tokens = count(part({"e": entry}, "e").get("inputTokens"))
        ttl = part({"e": entry}, "e").get("ttl")
        name = {"5m": "cache_write_5m_tokens", "1h": "cache_write_1h_tokens"}.get(str(ttl))
        if name and tokens is not None:
            found[name] = (found.get(name) or 0) + tokens
    return found


class BedrockReader(Reader):
    """Shared: header counts, error types, exceptions in streams."""

    def __init__(self) -> None:
        super().__init__()
        self._headers: dict[str, int] = {}
        self._error_type: str | None = None

    def head(self, status: int, headers: Headers) -> None:
        super().head(status, headers)
        for name in ("input", "output", "cache-read-input", "cache-write-input"):
            value = headers.get(f"{_HEADER}{name}-token-count")
            if value is not None and value.isdigit():
                self._headers[name] = int(value)
        if "input" in self._headers or "output" in self._headers:
            self.extra["header_input_tokens"] = self._headers.get("input")
            self.extra["header_output_tokens"] = self._headers.get("output")
        self.tier = text(headers.get("x-amzn-bedrock-service-tier"), 32)
        kind = headers.get("x-amzn-errortype")
        if kind:
            self._error_type = kind.partition(":")[0].rpartition("#")[2][:128]

    def fail(self, doc: Any) -> bool:
        found = super().fail(doc)
        if self.error is not None and self._error_type:
            self.error = type(self.error)(self._error_type, self.error.code, self.error.message)
        return found

    def exception(self, name: bytes, doc: Any) -> bool:
        """Is a message an exception? Then it is the error."""
        if not name.startswith((b"exception:", b"error:")):
            return False
        kind = name.partition(b":")[2].decode("utf-8", "replace")
        message = doc.get("message") if isinstance(doc, dict) else None
        self.error = call_error(kind, message)
        return True

    def head_native(self) -> dict[str, Any] | None:
        """The header's counts as a usage object."""
        if not self._headers:
            return None
        names = {
            "input": "header_input",
            "output": "header_output",
            "cache-read-input": "header_cache_read",
            "cache-write-input": "header_cache_write",
        }
        return {names[name]: value for name, value in self._headers.items()}


def call_error(kind: str, message: Any) -> CallError:
    return CallError(type=kind[:128] or None, message=text(message, 200))
