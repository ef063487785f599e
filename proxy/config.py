"""The configuration: one YAML file to frozen settings, and its reload.

Owns: which sections exist, loading with every fault told at its place, the
JSON Schema, and watching the file. Must never: let a bad file replace good
settings, or show the value of a secret.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from detection.settings import DetectionSettings, PolicySettings
from detection.types import ActionKind, Mode
from proxy.admin.settings import AdminSettings
from proxy.alerts.receivers.webhook import WebhookSettings
from proxy.alerts.settings import AlertsSettings
from proxy.config_faults import faults_of, mark_of, nearest, wrap_single_values
from proxy.config_secrets import hide_secrets
from proxy.config_yaml import Document, Fault, dotted, read
from proxy.http.settings import DEFAULT_UPSTREAMS, ServerSettings, UpstreamSettings, check_name
from proxy.journal import JournalSettings
from proxy.otel import OtelSettings
from proxy.pricing import PricingSettings
from proxy.settings import (
    BlastRadiusSettings,
    BudgetSettings,
    KeysSettings,
    LimitSettings,
    ProtectSettings,
)
from proxy.store.settings import StoreSettings

#: A file that doesn't change for this long is taken for whole.
_SETTLE_SECONDS = 0.25
#: A file that looks unfinished (empty, faulty, no line end) is given this long.
_PATIENCE_SECONDS = 1.0


_Named = LimitSettings | BudgetSettings
_UpstreamName = Annotated[str, AfterValidator(check_name)]


class Settings(BaseModel):
    """Everything that a person may set. Every section has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        Mode.ENFORCE,
        description="Master switch: observe (measure and tell), shadow (also say what would have "
        "been done) or enforce. No policy, limit or budget goes further than this.",
    )
    data_dir: Path = Field(
        Path("~/.tokenweir"),
        validate_default=True,
        description="Where the journal, the embedded store, snapshots and the install secret are.",
    )
    server: ServerSettings = Field(
        default_factory=ServerSettings, description="The ports and what they bear."
    )
    upstreams: dict[_UpstreamName, UpstreamSettings] = Field(
        default_factory=dict,
        description="Providers by name, beside the built-in ones; an entry of the same name "
        "replaces a built-in one.",
    )
    store: StoreSettings = Field(
        default_factory=StoreSettings, description="Where counts and decisions are shared."
    )
    journal: JournalSettings = Field(
        default_factory=JournalSettings, description="The record of every call on disk."
    )
    detection: DetectionSettings = Field(
        default_factory=DetectionSettings, description="What is judged, and how."
    )
    policies: PolicySettings = Field(
        default_factory=PolicySettings, description="What is done about a verdict."
    )
    limits: tuple[LimitSettings, ...] = Field((), description="Rates, calls at once, cost of one.")
    budgets: tuple[BudgetSettings, ...] = Field((), description="Dollars per period.")
    keys: KeysSettings = Field(
        default_factory=KeysSettings, description="Issued keys, and names for passed-through ones."
    )
    protect: tuple[ProtectSettings, ...] = Field(
        (), description="Callers that no automatic action may touch."
    )
    admin: AdminSettings = Field(
        default_factory=AdminSettings, description="The admin port: who may do what there."
    )
    alerts: AlertsSettings = Field(
        default_factory=AlertsSettings, description="Who is told of what, and how."
    )
    pricing: PricingSettings = Field(
        default_factory=PricingSettings, description="Prices beside the catalogue's, and markups."
    )
    otel: OtelSettings = Field(
        default_factory=OtelSettings,
        description="Spans and metrics by the GenAI conventions over OTLP; needs tokenweir[otel].",
    )
    blast_radius: BlastRadiusSettings = Field(
        default_factory=BlastRadiusSettings,
        description="How much of all traffic automation may stop at once.",
    )

    _source: str = PrivateAttr("")
    _text: str = PrivateAttr("")

    @field_validator("data_dir")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("limits", "budgets", mode="after")
    @classmethod
    def _names(cls, rules: tuple[_Named, ...]) -> tuple[_Named, ...]:
        names = [rule.name for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name `{twice[0]}` stands twice")
        return rules

    @property
    def source(self) -> str:
        """The file's name, empty where there is none."""
        return self._source

    @property
    def text(self) -> str:
        """What the file says, with secrets written into it hidden."""
        return hide_secrets(self._text, schema())

    @property
    def all_upstreams(self) -> dict[str, UpstreamSettings]:
        """The built-in upstreams with the file's over them."""
        return {**DEFAULT_UPSTREAMS, **self.upstreams}


class ConfigError(Exception):
    """A file that can't be used, with every fault in it.

    ``str()`` gives one line for each: ``file:line:column: path: what``.
    """

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each fault."""
        return [
            f"{self.file}:{f.line}:{f.column}: {f.path + ': ' if f.path else ''}{f.message}"
            for f in self.faults
        ]


def defaults() -> Settings:
    """The settings with no file at all."""
    return Settings()


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read a file. Raises :class:`ConfigError` with all faults at once."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(str(path), [Fault(1, 1, "", f"can't be read: {what}")]) from None
    return parse(text, str(path), environment)


def parse(text: str, name: str, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from a text; ``name`` stands in the messages."""
    document = read(text, os.environ if environment is None else environment)
    settings, faults = _validated(document)
    if settings is None or faults:
        raise ConfigError(name, faults)
    settings._source, settings._text = name, text
    return settings


def faults(text: str) -> list[Fault]:
    """All faults of a text, with every environment variable taken for set."""
    return _validated(read(text, _AnyVariable()))[1]


def trial(text: str) -> Settings:
    """Settings of a text that is tried out, with every environment variable taken for set.

    Raises :class:`ConfigError` with all faults at once.
    """
    return parse(text, "the changed text", _AnyVariable())


class _AnyVariable(dict[str, str]):
    """An environment where nothing is missing; values are what was meant to be."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """The variable's value, or its own name where it is not set."""
        return os.environ.get(name, default) or name


def _validated(document: Document) -> tuple[Settings | None, list[Fault]]:
    settings = None
    faults = list(document.faults)
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        if wrap_single_values(error, document):
            return _validated(document)
        told = {(f.line, f.column) for f in faults} | {f.path for f in faults if f.path}
        more = faults_of(error, document, schema())
        faults += [f for f in more if not {(f.line, f.column), f.path} & told]
    if settings is not None:
        faults += _unknown_receivers(settings, document)
    return settings, sorted(faults, key=lambda f: (f.line, f.column))


def _unknown_receivers(settings: Settings, document: Document) -> list[Fault]:
    """Webhook steps of policies that name no webhook receiver."""
    known = [one.name for one in settings.alerts.receivers if isinstance(one, WebhookSettings)]
    found = []
    for i, rule in enumerate(settings.policies.rules):
        for j, step in enumerate(rule.ladder):
            if step.action is ActionKind.WEBHOOK and step.webhook not in known:
                path = ("policies", "rules", i, "ladder", j, "webhook")
                line, column = mark_of(path, document)
                what = "must name a receiver of type webhook" + nearest(step.webhook, known)
                found.append(Fault(line, column, dotted(path), what))
    return found


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(by_alias=True, mode="validation"),
        "title": "Tokenweir configuration",
    }


async def watch(
    path: str | Path,
    on_change: Callable[[Settings], Awaitable[None] | None],
    on_error: Callable[[ConfigError], Awaitable[None] | None],
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Call ``on_change`` for each good new content of the file, until ``stop``.

    The directory is watched, so that atomic renames and symlink swaps are seen.
    A file that is still being written is waited for; a faulty one is told to
    ``on_error`` once and changes nothing.
    """
    file = Path(path)
    seen = _content(file)
    async with aclosing(_notices(file.absolute().parent, stop or asyncio.Event())) as notices:
        async for _ in notices:
            # Looked at each second too: a change before the watch began, or on a file
            # system that tells of none, is seen as well.
            if _content(file) == seen:
                continue
            text = await _settled(file)
            if text is None or text == seen:
                continue
            seen = text
            try:
                outcome = on_change(await asyncio.to_thread(parse, text, str(path)))
            except ConfigError as error:
                outcome = on_error(error)
            if outcome is not None:
                await outcome


async def _notices(folder: Path, stop: asyncio.Event) -> AsyncGenerator[None]:
    """One for each change in the folder, and one a second, until ``stop``."""
    import watchfiles  # only where a file is watched

    # Not `awatch`: that loads a second event loop's tools, to wait in a thread as well.
    changes = watchfiles.watch(
        folder,
        stop_event=stop,
        recursive=False,
        debounce=100,
        rust_timeout=1000,
        yield_on_timeout=True,
        raise_interrupt=False,
    )
    thread = ThreadPoolExecutor(1, "config-watch")
    loop = asyncio.get_running_loop()
    try:
        while await loop.run_in_executor(thread, next, changes, None) is not None:
            yield
    finally:
        stop.set()  # or the thread would go on
        thread.shutdown(wait=False)


async def _settled(file: Path) -> str | None:
    """The file's text once it has stopped changing, ``None`` while it is away."""
    clock = asyncio.get_running_loop().time
    text = _content(file)
    since = clock()
    faulty = await asyncio.to_thread(_faulty, text or "")
    while True:
        unfinished = not text or not text.endswith("\n") or faulty
        if clock() - since >= (_PATIENCE_SECONDS if unfinished else _SETTLE_SECONDS):
            return text
        await asyncio.sleep(0.05)
        now = _content(file)
        if now != text:
            text, since = now, clock()
            faulty = await asyncio.to_thread(_faulty, text or "")


def _faulty(text: str) -> bool:
    try:
        parse(text, "")
    except ConfigError:
        return True
    return False


def _content(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
