"""AWS Signature Version 4, for calls that go out with the proxy's own credentials.

Owns: signing one request anew (https://docs.aws.amazon.com/IAM/latest/UserGuide/
reference_sigv.html) with botocore, which comes with the extra ``bedrock``. Must
never: look for credentials, touch a socket, or keep a secret.

A signature covers the host, so one that was made for the proxy's address is worth
nothing at AWS's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

#: Fields of a signature, and those that the next hop sets for itself.
_REPLACED = frozenset(
    ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "host")
)
#: Fields that are signed where present; the others travel unsigned, as proxies change them.
_SIGNED = frozenset(("content-type", "accept"))


class Credentials(Protocol):
    """What signs. botocore's own credentials fit."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


def resign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str = "bedrock",
) -> dict[str, str]:
    """The request's header fields (lower-case names) with a new signature.

    Parameters
    ----------
    url : str
        Where the request really goes, with its raw path: ``%3A`` stays ``%3A``.
    headers : mapping
        As the client sent them; an old signature is dropped.

    Raises
    ------
    ImportError
        Without the extra ``bedrock``.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Keys

    kept = {k.lower(): v for k, v in headers.items() if k.lower() not in _REPLACED}
    request = AWSRequest(
        method=method,
        url=url,
        data=body,
        headers={name: value for name, value in kept.items() if name in _SIGNED},
    )
    keys = Keys(credentials.access_key, credentials.secret_key, credentials.token)
    SigV4Auth(keys, service, region).add_auth(request)
    return {**kept, **{name.lower(): str(value) for name, value in request.headers.items()}}
