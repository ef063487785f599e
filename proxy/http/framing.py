"""How an answer is framed, as its fields tell it (RFC 9112 section 6).

Owns: what the parser does not tell of a body's end, and how long a server keeps a connection
open. Must never: read a body.
"""

from __future__ import annotations

from proxy.http.headers import tokens

#: Final answers with these have no body (RFC 9110 section 6.4.1).
BODILESS = frozenset((204, 205, 304))


def is_chunked(fields: dict[str, str]) -> bool:
    """Is the body in chunks?"""
    coding = fields.get("transfer-encoding")
    return coding is not None and tokens(coding)[-1:] == ["chunked"]


def ends_by_close(status: int, fields: dict[str, str]) -> bool:
    """Does nothing but the connection's end tell the body's?"""
    return not ("content-length" in fields or status in BODILESS or is_chunked(fields))


def keep_alive_seconds(fields: dict[str, str], most: float) -> float:
    """How long to keep the connection after this answer, ``most`` seconds at most."""
    for token in tokens(fields.get("keep-alive", "")):
        name, _, seconds = token.partition("=")
        if name == "timeout" and seconds.isdigit():
            # A second less than the server's word, so that it never closes under a request.
            most = min(most, max(0, int(seconds) - 1))
    return most
