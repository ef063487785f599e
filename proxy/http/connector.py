"""How one origin is reached: its addresses, and its TLS session.

Owns: what is kept from one connect to the next. Must never: choose the origin, or trust
a certificate that the settings don't.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from proxy.http.routing import Origin
from proxy.http.settings import UpstreamSettings

_FRESH_SECONDS = 30.0
#: While the name can't be resolved, or is being resolved, the last addresses serve.
_STALE_SECONDS = 2.0


class Connector:
    """Connects to one origin."""

    def __init__(
        self, origin: Origin, settings: UpstreamSettings, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._origin = origin
        self._loop = loop
        self._context = _context(settings) if origin.tls else None
        self._addresses: list[str] = []
        self._fresh_until = 0.0

    async def connect(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect, to the first address that lets us.

        Raises ``socket.gaierror``, ``ssl.SSLError`` or another OSError.
        """
        error: OSError | None = None
        for address in await self._resolve():
            try:
                await self._loop.create_connection(
                    protocol,
                    address,
                    self._origin.port,
                    ssl=self._context,
                    server_hostname=self._origin.host if self._context else None,
                )
            except ssl.SSLError:
                raise  # another address would show the same certificate
            except asyncio.CancelledError:
                self._put_last(address)
                raise
            except OSError as refused:
                self._put_last(address)
                error = refused
            else:
                return
        self._fresh_until = 0.0
        raise error or OSError("no address")

    def remember(self, transport: asyncio.BaseTransport) -> None:
        """An answer has come on a new connection: its TLS session can be resumed."""
        if self._context is not None:
            tls = transport.get_extra_info("ssl_object")
            session = tls.session if tls is not None else None
            if session is not None and session.has_ticket:
                self._context.last = session

    async def _resolve(self) -> list[str]:
        now, known = self._loop.time(), self._addresses
        if known:
            if now < self._fresh_until:
                return list(known)
            self._fresh_until = now + _STALE_SECONDS  # others that come meanwhile don't wait
        try:
            found = await self._loop.getaddrinfo(
                self._origin.host, self._origin.port, type=socket.SOCK_STREAM
            )
        except socket.gaierror:
            if not known:
                raise
            return list(known)
        self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        self._fresh_until = self._loop.time() + _FRESH_SECONDS
        return list(self._addresses)

    def _put_last(self, address: str) -> None:
        """Try another address first, next time."""
        if address in self._addresses:
            self._addresses.remove(address)
            self._addresses.append(address)


class _Resuming(ssl.SSLContext):
    """Offers the last session of its origin at each handshake (RFC 8446 section 2.2).

    asyncio has no parameter for it, and asks the context for each connection's TLS.
    """

    last: ssl.SSLSession | None = None

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        named["session"] = self.last
        return super().wrap_bio(*arguments, **named)


def _context(settings: UpstreamSettings) -> _Resuming:
    default = ssl.create_default_context()
    default.__class__ = _Resuming  # all else stays as this Python has it by default
    context = cast(_Resuming, default)
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
