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

#: Fields that a signature brings, or that are signed anew with every hop.
SIGNATURE_FIELDS = frozenset(
    ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")
)
#: Fields that are signed where present, as are all of AWS's own (``x-amz…``); the others
#: travel unsigned, as proxies change them.
_SIGNED = frozenset(("content-type", "accept"))


class Credentials(Protocol):
    """What signs. botocore's own credentials fit."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


def signature(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    credentials: Credentials,
    region: str,
    service: str = "bedrock",
) -> dict[str, str]:
    """The fields (lower-case names) that take the place of ``SIGNATURE_FIELDS``.

    Parameters
    ----------
    url : str
        Where the request really goes, with its raw path: ``%3A`` stays ``%3A``.
    headers : mapping
        As they go out, lower-case names; an old signature among them is ignored.

    Raises
    ------
    ImportError
        Without the extra ``bedrock``.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Keys

    signed = {
        name: value
        for name, value in headers.items()
        if (name in _SIGNED or name.startswith("x-amz")) and name not in SIGNATURE_FIELDS
    }
    request = AWSRequest(method=method, url=url, data=body, headers=signed)
    keys = Keys(credentials.access_key, credentials.secret_key, credentials.token)
    SigV4Auth(keys, service, region).add_auth(request)
    return {
        name.lower(): str(value)
        for name, value in request.headers.items()
        if name.lower() in SIGNATURE_FIELDS
    }
