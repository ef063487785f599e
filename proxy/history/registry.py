"""The importers that exist, and which of them a file is for.

Owns: the table of formats and the choice by the first record. Must never: know
a format's fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from proxy.history.base import Importer
from proxy.history.importers import (
    anthropic,
    focus,
    helicone,
    journal,
    langfuse,
    litellm,
    mapped_csv,
    openai,
)

#: In the order of asking: the more particular before the more general.
IMPORTERS: Final[Mapping[str, Importer]] = {
    module.IMPORTER.name: module.IMPORTER
    for module in (journal, litellm, helicone, langfuse, focus, openai, anthropic, mapped_csv)
}


def importer_for(first: Mapping[str, Any]) -> Importer | None:
    """The importer whose format a file's first record shows, if any."""
    return next((known for known in IMPORTERS.values() if known.recognises(first)), None)
