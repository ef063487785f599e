"""Issued keys and names of others: who may, until when, and what is kept of a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.keys import KeyRecord, KeyRing, install_secret
from proxy.settings import BudgetSettings, KeysSettings, LimitSettings
from tests.unit.gate.bench import Time, call, gate

SECRET = b"s" * 32


def ring(clock: Time, **settings: Any) -> KeyRing:
    return KeyRing(SECRET, KeysSettings(**settings), clock)


def issued(keys: KeyRing, **more: Any) -> tuple[KeyRecord, str]:
    record, secret = keys.issue(**more)
    keys.put(record)
    return record, secret


def test_nothing_at_rest_tells_the_secret(clock: Time) -> None:
    record, secret = issued(ring(clock), name="ci")
    assert secret.startswith("tw-")
    assert secret not in record.model_dump_json()
    assert record.hash not in str(record.public())
    other = KeyRing(b"t" * 32, KeysSettings(), clock)
    other.put(record)
    assert other.identify(secret).refusal is not None


def test_a_key_ends_when_it_expires_is_disabled_or_rotated(clock: Time) -> None:
    keys = ring(clock)
    record, secret = issued(keys, expires_at=clock.now + 10)
    assert keys.identify(secret).refusal is None
    clock.now += 10
    ended = keys.identify(secret).refusal
    assert ended is not None
    assert "has expired" in ended.message
    record, first = issued(keys)
    rotated, second = keys.rotated(record, overlap_seconds=60)
    keys.put(rotated)
    assert keys.identify(first).refusal is None
    assert keys.identify(second).key == keys.identify(first).key == record.key
    clock.now += 60
    assert keys.identify(first).refusal is not None
    assert keys.identify(second).refusal is None
    disabled = rotated.model_copy(update={"disabled": True, "disabled_reason": "leaked"})
    keys.put(disabled)
    refused = keys.identify(second).refusal
    assert refused is not None
    assert (refused.kind, "leaked" in refused.message) == ("disabled", True)
    keys.remove(record.id)
    unknown = keys.identify(second).refusal
    assert unknown is not None
    assert unknown.kind == "unauthenticated"


def test_only_issued_keys_pass_where_they_are_required(clock: Time) -> None:
    keys = ring(clock, required=True)
    record, _ = issued(keys)
    g = gate(clock, keys=keys)
    assert g.admit(call(key="key_0")).kind == "forbidden"
    assert g.admit(call(key=record.key, virtual_key=record.id)).kind == "allow"


def test_providers_and_models_are_kept_to(clock: Time) -> None:
    keys = ring(clock)
    record, _ = issued(keys, providers=["openai"], models=["gpt-*"])
    g = gate(clock, keys=keys)
    mine: dict[str, Any] = {"key": record.key, "virtual_key": record.id}
    assert g.admit(call(model="gpt-5", **mine)).kind == "allow"
    assert g.admit(call(model="o3", **mine)).kind == "forbidden"
    elsewhere = call(model="gpt-5", **mine)
    elsewhere.provider = "azure"
    assert g.admit(elsewhere).kind == "forbidden"


@pytest.mark.parametrize("by", [("total",), ("key",), ("agent", "model")])
def test_its_own_limits_count_for_the_key_whatever_they_say(
    clock: Time, by: tuple[str, ...]
) -> None:
    keys = ring(clock)
    limit = LimitSettings(name="r", requests=1, per="day", by=by)
    budget = BudgetSettings(name="b", amount_usd=5, by=by)
    record, _ = issued(keys, limits=[limit], budgets=[budget])
    g = gate(clock, keys=keys)
    mine: dict[str, Any] = {"key": record.key, "virtual_key": record.id}
    assert g.admit(call("a", **mine)).kind == "allow"
    refused = g.admit(call("b", **mine)).refusal
    assert refused is not None
    assert refused.scope == f"key {record.key}"
    assert g.admit(call("c", key="key_1")).kind == "allow"


def test_keys_that_pass_through_have_names(clock: Time) -> None:
    fingerprint = ring(clock).identify("sk-passed-through").key
    keys = ring(clock, aliases={fingerprint: "ci-runner"})
    assert keys.label(fingerprint) == "ci-runner"
    assert keys.resolve("ci-runner") == fingerprint
    assert keys.resolve("key_ffffffffffff") == "key_ffffffffffff"
    assert "sk-passed" not in fingerprint


def test_the_install_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first = install_secret(tmp_path / "data")
    assert install_secret(tmp_path / "data") == first
    assert (tmp_path / "data/install-secret").stat().st_mode & 0o077 == 0
    assert install_secret(tmp_path / "other") != first
    assert install_secret(tmp_path, "configured") == install_secret(tmp_path / "x", "configured")
