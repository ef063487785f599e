"""OpenAI's Assistants API: runs of a thread.

Owns: run objects, streamed, created and polled
(https://platform.openai.com/docs/api-reference/runs). Must never: count the usage of
a run's steps beside the run's own.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.counts import compatible_counts
from proxy.providers.reading import Reader, items, part, text


class RunReader(Reader):
    """A run, or whatever else the Assistants API answers with."""

    judged = False
    skipped = frozenset((b"thread.message.delta", b"thread.run.step.delta"))

    def counts(self, native: dict[str, Any]) -> dict[str, Any]:
        return compatible_counts(native)

    def document(self, doc: Any) -> None:
        if not isinstance(doc, dict) or self.status >= 400:
            self.fail(doc)
            return
        self.model = text(doc.get("model")) or self.model
        if doc.get("object") != "thread.run":
            return
        if isinstance(usage := doc.get("usage"), dict) and usage:
            self.native = usage
        if isinstance(status := doc.get("status"), str):
            self.finish = {0: status[:64]}
        action = part(part(doc, "required_action"), "submit_tool_outputs")
        names = [part(call, "function").get("name") for call in items(action, "tool_calls")]
        self.tools = [name[:128] for name in names if isinstance(name, str)]
        if isinstance(doc.get("last_error"), dict):
            self.fail({"error": doc["last_error"]})

    def event(self, name: bytes, doc: Any) -> bytes | None:
        if name == b"error":
            self.fail(doc if isinstance(doc, dict) and "error" in doc else {"error": doc})
        else:
            self.document(doc)
        return None
