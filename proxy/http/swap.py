"""The provider's key in the place of ours.

Owns: where a credential stands in a request, and how another takes its place.
Must never: keep either of them.
"""

from __future__ import annotations

from proxy.http.identity import Credential
from proxy.providers.sigv4 import SIGNATURE_FIELDS

Lines = list[tuple[str, bytes]]


def swapped(
    fields: Lines, target: str, credential: Credential, key: str, wire: str
) -> tuple[Lines, str]:
    """The fields and the target with ``key`` where the client's credential was."""
    if credential.field == "query":
        return fields, target.replace(f"key={credential.value}", f"key={key}")
    if wire == "anthropic" and credential.field == "authorization":
        # Anthropic takes API keys in x-api-key; a Bearer there is an OAuth token.
        kept = [line for line in fields if line[0] != "authorization"]
        return [*kept, ("x-api-key", b"x-api-key: " + key.encode())], target
    if credential.field == "aws":
        # A signature gives way to Bedrock's other credential, an API key.
        kept = [line for line in fields if line[0] not in SIGNATURE_FIELDS]
        return [*kept, ("authorization", b"Authorization: Bearer " + key.encode())], target
    value = f"Bearer {key}" if credential.field == "authorization" else key
    return [
        (name, line.partition(b":")[0] + b": " + value.encode())
        if name == credential.field
        else (name, line)
        for name, line in fields
    ], target
