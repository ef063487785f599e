"""Keys: those the proxy issues, and names for those that pass through.

Owns: the install secret, fingerprints, virtual keys and what each may do. Must
never: keep, log or store a credential; only keyed hashes of it.

A virtual key's record lives in a control document of kind ``key``; its
identity (``key_`` + 12 hex) stays the same when its secret is rotated.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from detection.types import Mode
from proxy.context import RequestContext
from proxy.gate_rules import CallCap, Rule, compile_budget, compile_limit
from proxy.http.ports import Caller
from proxy.pattern import Pattern
from proxy.providers.base import Refusal
from proxy.settings import BudgetSettings, KeysSettings, LimitSettings, PatternText

PREFIX = "tw-"
_SECRET_BYTES = 32


class KeyRecord(BaseModel):
    """A virtual key at rest: everything but its secret."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    key: str
    hash: str
    name: str = ""
    owner: str = ""
    project: str | None = None
    models: tuple[PatternText, ...] = ()
    providers: tuple[PatternText, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    budgets: tuple[BudgetSettings, ...] = ()
    created_at: float = 0.0
    expires_at: float | None = None
    disabled: bool = False
    disabled_reason: str = ""
    #: Hashes of rotated secrets -> until when each still works.
    previous: dict[str, float] = Field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """What pages and the API may show."""
        return self.model_dump(mode="json", exclude={"hash", "previous"}, exclude_none=True)


class Terms(NamedTuple):
    """What a call's key says of it: a refusal, or rules and caps of its own."""

    forbidden: Refusal | None = None
    rules: tuple[Rule, ...] = ()
    caps: tuple[CallCap, ...] = ()


def install_secret(data_dir: Path, configured: str | None = None) -> bytes:
    """The secret behind all fingerprints: configured, or made at the first start.

    Replicas that share a store must be given the same one. Raises
    :class:`OSError` where the data directory can't be used.
    """
    if configured:
        return hashlib.blake2b(configured.encode(), person=b"tokenweir").digest()
    path = data_dir / "install-secret"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = data_dir / f".install-secret-{os.getpid()}-{secrets.token_hex(4)}"
    if not path.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = path.read_bytes()
    if len(secret) < _SECRET_BYTES:
        raise OSError(f"{path} is too short to be an install secret")
    return secret


def derived(secret: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose (client hashes, request fingerprints)."""
    return hmac.digest(secret, purpose.encode(), "sha256")


class KeyRing:
    """All keys known, by the hash of their secret.

    ``identify`` stands on every request: one hash and a dictionary look-up.
    """

    def __init__(
        self,
        secret: bytes,
        settings: KeysSettings,
        clock: Callable[[], float],
        mode: Mode = Mode.ENFORCE,
    ) -> None:
        self._fingerprint_key = derived(secret, "fingerprint")
        self._hash_key = derived(secret, "virtual-key")
        #: Tells whether two replicas have the same secret, without telling it.
        self.check = derived(secret, "check").hex()[:16]
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._by_key: dict[str, KeyRecord] = {}
        self._by_hash: dict[str, KeyRecord] = {}
        self._terms: dict[str, Terms] = {}
        self.configure(settings, mode)

    def configure(self, settings: KeysSettings, mode: Mode) -> None:
        """Take new settings."""
        self.settings = settings
        self._mode = mode
        for record in self._records.values():
            self._terms[record.key] = _own_terms(record, mode)

    # -- records ----------------------------------------------------------------

    def put(self, record: KeyRecord) -> None:
        """Take a record, new or changed."""
        self.remove(record.id)
        self._records[record.id] = record
        self._by_key[record.key] = record
        self._terms[record.key] = _own_terms(record, self._mode)
        for digest in (record.hash, *record.previous):
            self._by_hash[digest] = record

    def remove(self, key_id: str) -> None:
        """Forget a record."""
        record = self._records.pop(key_id, None)
        if record is None:
            return
        del self._by_key[record.key]
        del self._terms[record.key]
        for digest in (record.hash, *record.previous):
            self._by_hash.pop(digest, None)

    def records(self) -> list[KeyRecord]:
        """All virtual keys, oldest first."""
        return sorted(self._records.values(), key=lambda r: (r.created_at, r.id))

    def find(self, word: str) -> KeyRecord | None:
        """A virtual key by id, fingerprint or name."""
        named = (r for r in self._records.values() if r.name and r.name == word)
        return self._records.get(word) or self._by_key.get(word) or next(named, None)

    def resolve(self, word: str) -> str:
        """The fingerprint that a fingerprint, id, name or alias stands for."""
        record = self.find(word)
        if record is not None:
            return record.key
        aliased = (k for k, name in self.settings.aliases.items() if name == word)
        return next(aliased, word)

    def label(self, key: str) -> str:
        """A fingerprint's readable name, or itself."""
        record = self._by_key.get(key)
        return (record.name if record is not None else "") or self.settings.aliases.get(key, key)

    def issue(
        self,
        *,
        name: str = "",
        owner: str = "",
        project: str | None = None,
        models: Iterable[str] = (),
        providers: Iterable[str] = (),
        limits: Iterable[LimitSettings] = (),
        budgets: Iterable[BudgetSettings] = (),
        expires_at: float | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key and its secret, which is shown this once. Doesn't put it."""
        secret = PREFIX + secrets.token_urlsafe(30)
        key_id = "vk_" + secrets.token_hex(6)
        record = KeyRecord(
            id=key_id,
            key=self.fingerprint(key_id),
            hash=self._hash(secret),
            name=name,
            owner=owner,
            project=project,
            models=tuple(models),
            providers=tuple(providers),
            limits=tuple(limits),
            budgets=tuple(budgets),
            created_at=self._clock(),
            expires_at=expires_at,
        )
        return record, secret

    def rotated(self, record: KeyRecord, overlap_seconds: float | None) -> tuple[KeyRecord, str]:
        """The record with a new secret; the old one works on for the overlap."""
        secret = PREFIX + secrets.token_urlsafe(30)
        now = self._clock()
        overlap = (
            self.settings.rotation_overlap_seconds if overlap_seconds is None else overlap_seconds
        )
        previous = {h: until for h, until in record.previous.items() if until > now}
        if overlap > 0:
            previous[record.hash] = now + overlap
        return record.model_copy(update={"hash": self._hash(secret), "previous": previous}), secret

    # -- the hot path -----------------------------------------------------------

    def fingerprint(self, credential: str) -> str:
        """``key_`` and 12 hex digits, keyed by the install secret."""
        data = credential.encode("utf-8", "surrogateescape")
        return "key_" + hashlib.blake2b(data, digest_size=6, key=self._fingerprint_key).hexdigest()

    def identify(self, credential: str) -> Caller:
        """Whose credential it is, and whether it may be used now."""
        if not credential.startswith(PREFIX):
            return Caller(self.fingerprint(credential))
        digest = self._hash(credential)
        record = self._by_hash.get(digest)
        if record is None:
            return Caller(self.fingerprint(credential), refusal=_unknown())
        return Caller(
            record.key,
            virtual_key=record.id,
            project=record.project,
            owner=record.owner or None,
            refusal=self._unusable(record, digest) if _may_be_over(record, digest) else None,
        )

    def terms(self, ctx: RequestContext) -> Terms:
        """Why a call's key may not make it, or the limits of its own."""
        if ctx.virtual_key is None:
            return Terms(_key_required()) if self.settings.required else Terms()
        record = self._records.get(ctx.virtual_key)
        if record is None:
            return Terms(_unknown())
        if record.providers and not _allowed(record.providers, ctx.provider):
            return Terms(_forbidden(record, "provider", ctx.provider))
        if ctx.metered and record.models and not _allowed(record.models, ctx.model):
            return Terms(_forbidden(record, "model", ctx.model))
        return self._terms[record.key]

    def unusable(self, key_id: str | None) -> Refusal | None:
        """Why an issued key may not be used at all now, ``None`` where it may."""
        record = self._records.get(key_id) if key_id is not None else None
        return None if record is None else self._unusable(record, record.hash)

    def _hash(self, secret: str) -> str:
        data = secret.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, digest_size=32, key=self._hash_key).hexdigest()

    def _unusable(self, record: KeyRecord, digest: str) -> Refusal | None:
        now = self._clock()
        if record.disabled:
            why = f": {record.disabled_reason}" if record.disabled_reason else ""
            return _disabled(record, f"is disabled until a person enables it{why}")
        if record.expires_at is not None and now >= record.expires_at:
            return _disabled(record, "has expired")
        if digest != record.hash and now >= record.previous.get(digest, 0.0):
            return _disabled(record, "was rotated, and its old secret no longer works")
        return None


def _may_be_over(record: KeyRecord, digest: str) -> bool:
    return record.disabled or record.expires_at is not None or digest != record.hash


def _own_terms(record: KeyRecord, mode: Mode) -> Terms:
    rules: list[Rule] = []
    caps: list[CallCap] = []
    for limit in record.limits:
        found, cap = compile_limit(limit, mode)
        rules += found
        caps += [cap] if cap is not None else []
    rules += [compile_budget(budget, mode) for budget in record.budgets]
    # Whatever they say of `by`: each counts for this key.
    own = tuple(replace(r, name=f"{record.id}.{r.name}", by=("key",)) for r in rules)
    return Terms(None, own, tuple(caps))


def _allowed(patterns: Iterable[str], value: str | None) -> bool:
    return value is not None and any(Pattern(p).matches(value) for p in patterns)


def _title(record: KeyRecord) -> str:
    return f"key {record.name or record.id}"


def _disabled(record: KeyRecord, what: str) -> Refusal:
    return Refusal("disabled", f"Tokenweir: {_title(record)} {what}.", scope=f"key {record.key}")


def _forbidden(record: KeyRecord, what: str, value: str | None) -> Refusal:
    named = f"{what} {value}" if value else f"a call that names no {what}"
    return Refusal(
        "forbidden",
        f"Tokenweir: {_title(record)} may not use {named}.",
        scope=f"key {record.key}",
        rule=f"allowed_{what}s",
    )


def _unknown() -> Refusal:
    return Refusal("unauthenticated", "Tokenweir doesn't know this key.")


def _key_required() -> Refusal:
    return Refusal(
        "unauthenticated",
        "Tokenweir: this proxy takes only keys that it issued (keys.required).",
        rule="keys.required",
    )
