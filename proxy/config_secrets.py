"""A configuration text without the secrets that someone wrote into it.

Owns: which keys hold secrets, by the schema. Must never: hide a reference to
an environment variable, which is no secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_REFERENCE = re.compile(r"(?:\$\{[A-Za-z_]\w*(?::-)?\})?")
HIDDEN = '"(hidden)"'


def hide_secrets(text: str, schema: Mapping[str, Any]) -> str:
    """The text with every literal secret replaced, however it is written.

    >>> schema = {"properties": {"api_key": {"type": "string", "format": "password"}}}
    >>> hide_secrets("api_key: sk-1\\napi_key: ${KEY}\\n", schema)
    'api_key: "(hidden)"\\napi_key: ${KEY}\\n'
    """
    names = frozenset(_secret_names(schema))
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return "# The text can't be read, so that nobody knows what in it is secret.\n"
    spans = {(one.start_mark.index, one.end_mark.index) for one in _secrets(root, names)}
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + HIDDEN + text[end:]
    return text


def _secrets(node: Any, names: frozenset[str], *, within: bool = False) -> Iterator[Any]:
    """The scalars that stand under a secret's name and are no reference."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            named = isinstance(key, yaml.ScalarNode) and key.value in names
            yield from _secrets(value, names, within=within or named)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _secrets(value, names, within=within)
    elif within and isinstance(node, yaml.ScalarNode) and not _REFERENCE.fullmatch(node.value):
        yield node


def _secret_names(node: Any) -> Iterator[str]:
    """Names of properties whose value is a secret, anywhere in the schema."""
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            if _is_secret(child):
                yield name
        for child in node.values():
            yield from _secret_names(child)
    elif isinstance(node, list):
        for child in node:
            yield from _secret_names(child)


def _is_secret(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    choices = [node, *node.get("anyOf", ()), node.get("additionalProperties"), node.get("items")]
    return any(isinstance(c, dict) and c.get("format") == "password" for c in choices)
