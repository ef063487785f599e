"""Thousands of plain calls a second, at a steady pace, by clients and an upstream in C.

wrk (Debian's) sends, ``tests/benchmarks/upstream.c`` answers: on two cores, clients in
Python would be the load's own limit. Each of the two counts by itself.

Owns: the crowd's calls and its books. Must never: leave a call under way when it ends,
since a call that is cut is in some books and not in others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from tests.benchmarks._load import counted, upstream
from tests.chaos.lab import Lab, MissingError, chat

CONNECTIONS = 64
UPSTREAM = "crowd"
_CPU = (os.cpu_count() or 1) - 1

#: ``delay`` is asked before each request of any connection: it hands out one place in a
#: queue that moves at the wanted rate, and none in the last two seconds of the run.
_SCRIPT = """\
local ffi = require("ffi")
ffi.cdef[[
typedef struct { long seconds; long nanoseconds; } instant;
int clock_gettime(int clock, instant *at);
]]
local at = ffi.new("instant")
local function now()
  ffi.C.clock_gettime(1, at)
  return tonumber(at.seconds) + tonumber(at.nanoseconds) / 1e9
end
local rate, seconds, head, tail, n = %(rate)f, %(seconds)f, %(head)s, %(tail)s, 0
local began, place
function delay()
  local t = now()
  if not began then began = t; place = t end
  if t - began > seconds then return 60000 end
  if rate == 0 then return 0 end
  place = math.max(place + 1 / rate, t - 0.05)
  return math.max(0, math.floor((place - t) * 1000))
end
function request()
  n = n + 1
  local body = head .. n .. tail
  return wrk.format("POST", "/%(upstream)s/v1/chat/completions", {
    ["Authorization"] = "Bearer sk-chaos-0123456789", ["Content-Type"] = "application/json",
    ["X-Tokenweir-Agent"] = "agent-" .. n %% 20 }, body)
end
function done(summary)
  local e = summary.errors
  local socket = e.connect + e.read + e.write + e.timeout
  local line = '\\n{"requests":%%d,"status":%%d,"socket":%%d}\\n'
  io.write(string.format(line, summary.requests, e.status, socket))
end
"""


@dataclass
class Sent:
    """What wrk says of one run: calls done, of those answered with an error, and cut ones."""

    requests: int = 0
    seconds: float = 0.0
    status: int = 0
    socket: int = 0

    def __iadd__(self, other: Sent) -> Sent:
        self.requests += other.requests
        self.seconds += other.seconds
        self.status += other.status
        self.socket += other.socket
        return self


class Crowd:
    """The upstream, for as long as the lab; and runs of clients through a proxy."""

    def __init__(self, lab: Lab) -> None:
        for program in ("wrk", "cc"):
            if shutil.which(program) is None:
                raise MissingError(f"{program} is not installed (tests/setup.sh chaos)")
        self.port = lab.enter(upstream(0, _CPU))
        self.sent = Sent()
        lab.add_upstreams(
            **{UPSTREAM: {"base_url": f"http://127.0.0.1:{self.port}/v1", "wire": "openai"}}
        )

    def run(self, port: int, seconds: float, rate: float = 0.0) -> Sent:
        """Send for a while, so many a second (0: as fast as answers come)."""
        start, end = json.dumps(chat("What is known of order @?")).split("@")
        values = {"rate": rate, "seconds": seconds, "upstream": UPSTREAM}
        text = _SCRIPT % {**values, "head": json.dumps(start), "tail": json.dumps(end)}
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(text)
            file.flush()
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds + 2:.0f}s"]
            command += ["--timeout", "30s", "-s", file.name, f"http://127.0.0.1:{port}/"]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = Sent(seconds=seconds, **json.loads(said.strip().splitlines()[-1]))
        self.sent += found
        return found

    def upstream_saw(self) -> int:
        """Calls that reached the upstream, by its own count."""
        return counted(self.port)["requests"]


@dataclass
class Records:
    """What one reading of a whole journal found."""

    calls: int = 0
    crowd: int = 0
    cost_nano_usd: int = 0
    sessions: Counter[str] = field(default_factory=Counter)


def records(data: Path) -> Records:
    """Count every record of a data folder, one at a time: there may be millions."""
    found = Records()
    for path in sorted((data / "journal").rglob("*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                record = orjson.loads(line)
                if "endpoint" not in record:
                    continue
                found.calls += 1
                found.cost_nano_usd += record["cost_nano_usd"] or 0
                if record["upstream"] == UPSTREAM:
                    found.crowd += 1
                else:
                    found.sessions[str(record["session"])] += 1
    return found
