"""How well, and how fast, the wire families read recorded traffic.

Owns: the comparison of our reading with a file of recorded interactions, field by
field, and the cost of parsing. Must never: look at anything in a record but what a
proxy would see before it has parsed.

Usage: ``python -m tests.benchmarks.wire FILE.jsonl.gz [--out OUT.jsonl] [--splits]``
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from detection.types import Usage
from proxy.providers import (
    provider_of,
    read_request,
    recognise,
    response_parser,
    retry_after,
    websocket_parser,
)
from proxy.providers.limits import reset_seconds
from proxy.providers.websocket import encode_frame
from tests.benchmarks.wire_cost import report_cost

_KEY = b"benchmark"
_WORST = 20
#: Fields that describe the record, not the reading of it.
_NOT_SCORED = frozenset(("ambiguous", "extra", "second_opinion"))
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "total_tokens",
)

Feeder = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    """The body in one piece."""
    yield data


def by_bytes(data: bytes) -> Iterator[bytes]:
    """The body byte by byte."""
    for at in range(len(data)):
        yield data[at : at + 1]


def at_random(data: bytes) -> Iterator[bytes]:
    """The body in pieces of random lengths, the same for the same body."""
    chance = random.Random(len(data))
    at = 0
    while at < len(data):
        size = chance.choice((1, 2, 3, 7, 64, 700, 5000))
        yield data[at : at + size]
        at += size


def body_of(record: dict[str, Any], side: str) -> bytes:
    """A recorded body as bytes."""
    encoded = record.get(f"{side}_body_b64")
    if encoded is not None:
        return base64.b64decode(encoded)
    return (record.get(f"{side}_body") or "").encode("utf-8", "surrogatepass")


def content_type(record: dict[str, Any], body: bytes) -> str:
    """The request's content type; forms are told by their first bytes where it was lost."""
    found = (record.get("request_headers") or {}).get("content-type")
    if found:
        return str(found)
    form = body.lstrip().startswith(b"--") and b"name=" in body[:4096]
    return "multipart/form-data" if form else "application/json"


def now_of(headers: dict[str, str]) -> float:
    """When the answer was sent, for resets that are points in time."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def read(record: dict[str, Any], feeder: Feeder = whole) -> dict[str, Any]:
    """Our reading of one record, under the names of ``expected``."""
    host, path = record["host"] or "", record["path"] or "/"
    endpoint = recognise(
        provider_of(host, path),
        "",
        record["method"] or "POST",
        path,
        record.get("query") or "",
        record.get("request_headers") or {},
    )
    sent = body_of(record, "request")
    facts = read_request(endpoint, sent, content_type(record, sent), _KEY)
    answer_headers = record.get("response_headers") or {}
    headers = {k: v for k, v in answer_headers.items() if isinstance(v, str)}
    if record["streaming"] == "websocket":
        usage = _session(record, endpoint, feeder)
    else:
        parser = response_parser(endpoint, facts, record["status"] or 200, headers)
        for piece in feeder(body_of(record, "response")):
            parser.feed(piece)
        usage = parser.close(complete=True)
    return _as_expected(endpoint, facts, usage, headers)


def _session(record: dict[str, Any], endpoint: Any, feeder: Feeder) -> Usage:
    parser = websocket_parser(endpoint, {})
    for line in body_of(record, "response").splitlines():
        message = json.loads(line)
        data = message["data"]
        payload = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        if message["direction"] == "sent":
            for piece in feeder(encode_frame(payload.encode(), mask=b"mask")):
                parser.feed_client(piece)
        else:
            for piece in feeder(encode_frame(payload.encode())):
                parser.feed_server(piece)
    return parser.close(complete=True)


def _as_expected(
    endpoint: Any, facts: Any, usage: Usage, headers: dict[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "provider": endpoint.provider,
        "endpoint": "other" if endpoint.name == "unknown" else endpoint.name,
        "model_requested": facts.model or endpoint.model or usage.extra.get("model_requested"),
        "model_served": usage.model_served,
        "usage_present": usage.source == "reported",
        "native_usage": usage.extra.get("native_usage"),
        "finish_reasons": [_word(reason) for reason in usage.finish_reasons],
        "tool_call_names": list(usage.tool_call_names),
        "server_tool_names": list(usage.server_tool_names),
        "error": None,
        "stream_complete": usage.complete,
        "tool_use_prompt_tokens": usage.extra.get("tool_use_prompt_tokens"),
        "extra": {
            k: v
            for k, v in usage.extra.items()
            if k not in ("native_usage", "tool_use_prompt_tokens", "model_requested")
        }
        or None,
    }
    for name in _COUNTS:
        found[name] = getattr(usage, name)
    if usage.error is not None:
        found["error"] = {
            "type": usage.error.type,
            "code": _number_or_word(usage.error.code),
            "message": usage.error.message,
        }
    now = now_of(headers)
    found["retry_after_s"] = retry_after({"retry-after": headers.get("retry-after", "")}, now)
    if "retry-after-ms" in headers:
        found["retry_after_ms"] = round((retry_after(headers, now) or 0) * 1000)
    # Recorded answers have lost their date: only resets told as durations can be compared.
    resets = {
        name: reset_seconds(value, 0.0) if not value.isdigit() or len(value) < 9 else None
        for name, value in headers.items()
        if name.startswith("x-ratelimit-reset")
    }
    found["ratelimit_reset_s"] = resets or None
    return found


def _word(reason: str) -> Any:
    if reason == "":
        return None
    return int(reason) if reason.isdigit() else reason


def _number_or_word(code: str | None) -> Any:
    return int(code) if code is not None and code.isdigit() else code


def is_null(value: Any) -> bool:
    """Does a value count as "the provider did not say"?"""
    return value is None or value == [] or value == {}


def agree(ours: Any, theirs: Any) -> bool:
    """Are two readings of a field the same?"""
    if isinstance(ours, float) or isinstance(theirs, float):
        return (
            isinstance(ours, int | float)
            and isinstance(theirs, int | float)
            and abs(ours - theirs) <= 0.01 + 1e-6 * abs(theirs)
        )
    if isinstance(theirs, dict) and isinstance(ours, dict):
        pairs = [(ours.get(name), value) for name, value in theirs.items()]
        return all(agree(a, b) or (is_null(a) and is_null(b)) for a, b in pairs)
    if isinstance(theirs, str) or isinstance(ours, str):
        return str(ours) == str(theirs)
    return bool(ours == theirs)


def fields(ours: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields to compare: those that either side says anything of."""
    skipped = _NOT_SCORED | set(expected.get("ambiguous") or ())
    for name in (ours.keys() | expected.keys()) - skipped:
        mine, theirs = ours.get(name), expected.get(name)
        if name == "error":
            for piece in ("type", "code", "message"):
                yield f"error.{piece}", (mine or {}).get(piece), (theirs or {}).get(piece)
        else:
            yield name, mine, theirs


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def main(arguments: list[str] | None = None) -> int:
    """Read a file, print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, help="write our reading of each record here")
    parser.add_argument(
        "--splits", action="store_true", help="also feed byte by byte and at random, and compare"
    )
    parser.add_argument("--no-cost", action="store_true", help="leave out the timing")
    parser.add_argument("--worst", type=int, default=_WORST)
    options = parser.parse_args(arguments)
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    by_kind: dict[str, Counter[bool]] = defaultdict(Counter)
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    records = split_faults = 0
    out = options.out.open("w", encoding="utf-8") if options.out else None
    for record in records_of(options.file):
        expected = record["expected"]
        ours = read(record)
        records += 1
        if options.splits and any(read(record, f) != ours for f in (by_bytes, at_random)):
            split_faults += 1
            print(f"split: {record['id']} reads differently in pieces")
        if out is not None:
            out.write(json.dumps({"id": record["id"], **ours}, ensure_ascii=False) + "\n")
        kind = f"{expected['provider']} {expected['endpoint']}"
        for name, mine, theirs in fields(ours, expected):
            if is_null(mine) and is_null(theirs):
                continue
            same = agree(mine, theirs)
            seen[name] += 1
            right[name] += same
            by_kind[kind][same] += 1
            if not same:
                wrong[(kind, name)].append(
                    f"{record['id']} ours {_brief(mine)} expected {_brief(theirs)}"
                )
    if out is not None:
        out.close()
    _report(right, seen, by_kind, wrong, options.worst)
    if options.splits:
        print(f"\nread differently in pieces: {split_faults} of {records}")
    if not options.no_cost:
        report_cost()
    total, good = sum(seen.values()), sum(right.values())
    print(f"agreement {good / max(1, total):.4f} over {total} fields of {records} records")
    return 0


def _brief(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 120 else shown[:117] + "..."


def _report(
    right: Counter[str],
    seen: Counter[str],
    by_kind: dict[str, Counter[bool]],
    wrong: dict[tuple[str, str], list[str]],
    worst: int,
) -> None:
    print(f"{'field':28} {'agreement':>9} {'wrong':>6} {'of':>6}")
    for name in sorted(seen, key=lambda n: (right[n] / seen[n], n)):
        missed = seen[name] - right[name]
        print(f"{name:28} {right[name] / seen[name]:9.4f} {missed:6} {seen[name]:6}")
    print(f"\n{'provider endpoint':44} {'agreement':>9} {'wrong':>6} {'of':>6}")
    for kind, counts in sorted(by_kind.items()):
        total = counts[True] + counts[False]
        print(f"{kind:44} {counts[True] / total:9.4f} {counts[False]:6} {total:6}")
    print(f"\nworst {worst} disagreements")
    for (kind, name), cases in sorted(wrong.items(), key=lambda w: -len(w[1]))[:worst]:
        print(f"{len(cases):5} {kind} {name}: {cases[0]}")
        for case in cases[1:3]:
            print(f"{'':6}{case}")
    print()


if __name__ == "__main__":
    sys.exit(main())
