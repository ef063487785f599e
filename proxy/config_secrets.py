"""A configuration text without the secrets that someone wrote into it.

Owns: which keys hold secrets, by the schema. Must never: hide a reference to
an environment variable, which is no secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = '"(hidden)"'


def hide_secrets(text: str, schema: Mapping[str, Any]) -> str:
    """The text with every literal secret replaced.

    >>> schema = {"properties": {"api_key": {"type": "string", "format": "password"}}}
    >>> hide_secrets("api_key: sk-1\\napi_key: ${KEY}\\n", schema)
    'api_key: "(hidden)"\\napi_key: ${KEY}\\n'
    """
    names = sorted(set(_secret_names(schema)))
    if not names:
        return text
    value = r"""(?P<value>\$\{[^}\n]*\}|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,{}#][^,}#\n]*)"""
    pattern = re.compile(
        rf"(?P<name>\b(?:{'|'.join(map(re.escape, names))})[\"']?[ ]*:[ ]*){value}"
    )

    def replace(found: re.Match[str]) -> str:
        if re.fullmatch(r"[\"']?\$\{[A-Za-z_]\w*(:-)?\}[\"']?", found["value"].strip()):
            return found.group()
        return found["name"] + HIDDEN

    block = re.compile(
        rf"(?m)^(?P<indent>[ ]*(?:- )?)(?:{'|'.join(map(re.escape, names))}):[ ]*(?:#.*)?\n"
        r"(?:(?P=indent)[ ]+\S.*\n?)+"
    )
    text = block.sub(
        lambda found: re.sub(r"(?m)^([ ]+[^:\n]+:[ ]+).+$", rf"\1{HIDDEN}", found[0]), text
    )
    return pattern.sub(replace, text)


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
