"""Every trap of every vendor, on answers of our own."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pricing import Pricer, PricingSettings
from tests.wire.fixture import Fixture, by_bytes, cut, fixtures

ALL = fixtures()
NAMES = [f"{f.family}/{f.name}" for f in ALL]
_OF_ENDPOINT = {"provider": "provider", "endpoint": "name", "metered": "metered", "wire": "wire"}
_OF_FACTS = frozenset(("model", "user", "session", "stream", "max_output_tokens", "include_usage"))
_PRICER = Pricer(PricingSettings())
_AT = 1_790_000_000.0


def _found(fixture: Fixture, name: str, usage: Any) -> Any:
    if name in _OF_ENDPOINT:
        return getattr(fixture.endpoint, _OF_ENDPOINT[name])
    if name in _OF_FACTS:
        facts = fixture.facts()
        if name == "model":
            return facts.model or fixture.endpoint.model
        if name == "stream":
            return facts.stream or fixture.endpoint.streams
        return getattr(facts, name)
    if name == "cost_nano_usd":
        model = fixture.facts().model
        return _PRICER.price(fixture.endpoint.provider, model, usage, at=_AT).cost_nano_usd
    value = getattr(usage, name)
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("fixture", ALL, ids=NAMES)
def test_reads_what_the_vendor_said(fixture: Fixture) -> None:
    usage = fixture.read([fixture.body])
    for name, expected in fixture.content["expect"].items():
        if name == "error":
            assert usage.error is not None
            for part, word in expected.items():
                assert getattr(usage.error, part) == word, part
        else:
            assert _found(fixture, name, usage) == expected, name
    if "error" not in fixture.content["expect"]:
        assert usage.error is None


@pytest.mark.parametrize("fixture", ALL, ids=NAMES)
def test_reads_the_same_byte_by_byte(fixture: Fixture) -> None:
    assert fixture.read(by_bytes(fixture.body)) == fixture.read([fixture.body])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_reads_the_same_however_split(data: st.DataObject) -> None:
    fixture = data.draw(st.sampled_from(ALL))
    body = fixture.body
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=12))
    assert fixture.read(cut(body, places)) == fixture.read([body])


@pytest.mark.parametrize("fixture", ALL, ids=NAMES)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate", "br", "zstd"])
def test_reads_the_same_compressed(fixture: Fixture, encoding: str) -> None:
    body = fixture.body
    if encoding == "gzip":
        packed = gzip.compress(body)
    elif encoding == "br":
        packed = brotli.compress(body)
    elif encoding == "zstd":
        packed = zstandard.compress(body)
    else:
        engine = zlib.compressobj(wbits=-15 if encoding == "raw deflate" else 15)
        packed = engine.compress(body) + engine.flush()
    headers = {"content-encoding": encoding.removeprefix("raw ")}
    plain = fixture.read([body])
    assert fixture.read(by_bytes(packed), headers) == plain
    assert fixture.read([packed], headers) == plain


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_answers_never_raise(data: st.DataObject) -> None:
    fixture = data.draw(st.sampled_from(ALL))
    body = bytearray(fixture.body)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        match data.draw(st.sampled_from(("flip", "cut", "insert", "double"))):
            case "flip" if body:
                body[at] = data.draw(st.integers(0, 255))
            case "cut":
                del body[at : at + data.draw(st.integers(0, 40))]
            case "insert":
                body[at:at] = data.draw(st.binary(max_size=20))
            case _:
                body[at:at] = body[at : at + 100]
    usage = fixture.read(cut(bytes(body), [len(body) // 3, len(body) // 2]))
    for count in (usage.input_tokens, usage.output_tokens, usage.total_tokens):
        assert count is None or count >= 0


def test_every_trap_has_a_fixture() -> None:
    """The numbered traps that are about answers; the others have tests of their own."""
    told = ",".join(str(f.content.get("trap", "")) for f in ALL)
    numbers = {word.strip() for word in told.split(",")}
    in_other_tests = {"9", "23"}
    assert {str(n) for n in range(1, 24)} - numbers <= in_other_tests
    assert "never recorded" in numbers
