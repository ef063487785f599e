"""Azure OpenAI and Azure AI Foundry: OpenAI's formats under other paths.

Owns: deployments in paths, and Azure's error words
(https://learn.microsoft.com/azure/ai-foundry/openai/reference). Must never: await
or raise.
"""

from __future__ import annotations

import re

from proxy.providers.base import Endpoint, RequestFacts
from proxy.providers.family import Family, Rule
from proxy.providers.openai import CompatibleReader
from proxy.providers.reading import Reader
from proxy.providers.refusals import azure_refusal, openai_stream_error
from proxy.providers.turns import chat_facts, chat_turn

_DEPLOYMENT = r"/deployments/(?P<model>[^/]+)"


def _reader(endpoint: Endpoint, facts: RequestFacts) -> Reader:
    return CompatibleReader()


def _rule(path: str, endpoint: str) -> Rule:
    return Rule(re.compile(_DEPLOYMENT + path), endpoint, frozenset(("POST",)))


FAMILY = Family(
    wire="azure",
    rules=(
        _rule(r"(?:/extensions)?/chat/completions$", "chat_completions"),
        _rule(r"/completions$", "completions"),
        _rule(r"/embeddings$", "embeddings"),
        _rule(r"/images/(?:generations|edits)(?::submit)?$", "images"),
        _rule(r"/audio/(?:transcriptions|translations)$", "audio_transcription"),
        _rule(r"/audio/speech$", "audio_speech"),
    ),
    reader=_reader,
    refusal=azure_refusal,
    stream_error=openai_stream_error,
    turn=chat_turn,
    facts=chat_facts,
)
