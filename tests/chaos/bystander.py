"""A client that has nothing to do with the fault, and must not notice it.

Owns: a steady trickle of calls on its own thread, how long each took, and the
calls of a blocked agent among them. Must never: call faster than its pause allows.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable

BLOCKED_AGENT = "blocked-by-hand"
_PAUSE_SECONDS = 0.02


class Bystander:
    """Calls again and again on a kept connection.

    ``forgotten`` counts calls of the blocked agent that were let through, and
    ``failed`` those of others that got no answer of the upstream.
    """

    def __init__(self, port: Callable[[], int], name: str, try_header: str) -> None:
        self._port = port
        self._name = name
        self._try_header = try_header
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        self.seconds: list[float] = []
        self.forgotten = 0
        self.failed = 0
        self.answered: set[str] = set()

    def start(self) -> None:
        self.seconds, self._stop = [], threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(15)
        self._drop()

    def watch(self, seconds: float) -> float:
        """Call for a while with no fault; the 99th percentile in seconds."""
        self.start()
        time.sleep(seconds)
        self.stop()
        return self.p99()

    def p99(self) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0

    def _run(self) -> None:
        while not self._stop.is_set():
            self._number += 1
            blocked = self._number % 8 == 0
            status = self._call(BLOCKED_AGENT if blocked else "bystander")
            if blocked:
                self.forgotten += status == 200
            else:
                self.failed += status != 200
            self._stop.wait(_PAUSE_SECONDS)

    def _call(self, agent: str) -> int:
        name = f"{self._name}-{self._number}"
        body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": name}]})
        headers = {
            "Content-Type": "application/json",
            "Authorization": "Bearer sk-bystander-0123456789",
            "X-Tokenweir-Agent": agent,
            "X-Tokenweir-Session": name,
            self._try_header: name,
        }
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=10)
            self._connection.request("POST", "/v1/chat/completions", body, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self._drop()
            return 0
        self.seconds.append(time.monotonic() - began)
        self.answered.add(name)
        return answer.status

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
