"""The only way out to receivers: guarded addresses, bounded answers, deadlines.

Owns: the check of every address at the moment a socket is made for it, so
that neither a name that resolves to a private address, nor one that changes
between check and use, nor an odd spelling of an IP gets through. Must never:
follow a redirect unasked, read an answer without bound, or say a URL's secret
parts in an error.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from proxy.alerts.outcome import Outcome, Reason, outcome_of_status
from proxy.redact import MASK, escape_controls, redact_text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MOST_REDIRECTS = 3
_DETAIL = 200


class AddressRefusedError(PermissionError):
    """An address that receivers may not have."""


def effective_address(text: str) -> Address:
    """The address that packets really go to: IPv4 wrapped in IPv6 is unwrapped.

    >>> effective_address("::ffff:127.0.0.1")
    IPv4Address('127.0.0.1')
    """
    address: Address = ipaddress.ip_address(text.split("%", 1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        return inner or address
    return address


def is_allowed(text: str, allowed: Iterable[Network]) -> bool:
    """Whether a receiver may be at this address.

    >>> ten = ipaddress.ip_network("10.0.0.0/8")
    >>> is_allowed("169.254.169.254", [ten]), is_allowed("10.1.2.3", [ten])
    (False, True)
    """
    address = effective_address(text)
    if any(address.version == net.version and address in net for net in allowed):
        return True
    return address.is_global and not (address.is_multicast or address.is_reserved)


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer, cut at the bound."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    retry_after_seconds: float | None = None
    #: The start of the body, fit for a log line.
    said: str = ""

    def outcome(self) -> Outcome:
        """What the status means."""
        return outcome_of_status(self.status, self.said, self.retry_after_seconds)


class NetError(Exception):
    """A try that got no answer."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.outcome = Outcome(reason, detail)


class Net:
    """Sends requests to receivers.

    Parameters
    ----------
    allowed
        Private networks in which receivers may be.
    now
        Callable giving epoch seconds, to read Retry-After dates.
    secrets
        What receivers are given and may say back; it is never passed on.
    """

    def __init__(
        self,
        *,
        allowed: Iterable[str] = (),
        follow_redirects: bool = False,
        timeout_seconds: float = 10.0,
        answer_bytes: int = 65_536,
        now: Callable[[], float],
        secrets: Iterable[str] = (),
    ) -> None:
        self._secrets = tuple(sorted(set(secrets), key=len, reverse=True))
        self._allowed = tuple(ipaddress.ip_network(text) for text in allowed)
        self._follow = follow_redirects
        self.timeout_seconds = timeout_seconds
        self._answer_bytes = answer_bytes
        self.now = now
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def hide(self, text: str) -> str:
        """A receiver's words without secrets, its own or anyone's, and as one short line."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return escape_controls(redact_text(text)[:_DETAIL])

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST"
    ) -> Answer:
        """One request and its bounded answer; raises :class:`NetError` where there is none."""
        target = url
        try:
            async with asyncio.timeout(self.timeout_seconds):
                for _ in range(_MOST_REDIRECTS + 1):
                    answer, location = await self._once(target, body, headers, method)
                    if location is None or not self._follow or answer.status not in (307, 308):
                        return answer
                    target = self._redirected(target, location)
        except TimeoutError as error:
            raise NetError(Reason.TIMEOUT) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._explained(error) from error
        raise NetError(Reason.REDIRECTED, "too many redirects")

    async def _once(
        self, url: str, sent: bytes, headers: Mapping[str, str], method: str
    ) -> tuple[Answer, str | None]:
        session = self._open()
        async with session.request(
            method, url, data=sent, headers=headers, allow_redirects=False
        ) as response:
            held = bytearray()
            async for chunk in response.content.iter_chunked(8_192):
                held += chunk
                if len(held) >= self._answer_bytes:
                    response.close()
                    break
            wait = self._retry_after(response.headers.get("Retry-After"))
            body = bytes(held[: self._answer_bytes])
            said = self.hide(body.decode("utf-8", "replace"))
            answer = Answer(response.status, body, dict(response.headers), wait, said)
            return answer, response.headers.get("Location")

    def _redirected(self, old: str, location: str) -> str:
        new = urljoin(old, location)
        if urlsplit(new).netloc != urlsplit(old).netloc:
            raise NetError(Reason.REDIRECTED, "to another host, which would get our credentials")
        return new

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=64, use_dns_cache=False, socket_factory=self._make_socket
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "tokenweir"},
            )
        return self._session

    def _make_socket(self, info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        self._check(address[0])
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made

    def _check(self, address: str) -> None:
        if not is_allowed(address, self._allowed):
            raise AddressRefusedError("alerts.allow_addresses doesn't hold the receiver's address")

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected socket to a host that isn't spoken to by HTTP."""
        loop = asyncio.get_running_loop()
        last: OSError = OSError("no address")
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NetError(Reason.CONNECTION, "name not found") from error
        for info in found:
            made: socket.socket | None = None
            try:
                made = self._make_socket(info)
                await loop.sock_connect(made, info[4])
                return made
            except OSError as error:
                last = error
                if made is not None:
                    made.close()
        raise self._explained(last) from last

    def _retry_after(self, value: str | None) -> float | None:
        """Seconds from either form of the header (RFC 9110, 10.2.3), a day at most."""
        if not value:
            return None
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - self.now()
            except (TypeError, ValueError):
                return None
        return min(max(seconds, 0.0), 86_400.0)

    def _explained(self, error: Exception) -> NetError:
        cause: BaseException | None = error
        while cause is not None:
            refused = isinstance(cause, AddressRefusedError) or isinstance(
                getattr(cause, "os_error", None), AddressRefusedError
            )
            if refused or "alerts.allow_addresses" in str(cause):
                return NetError(Reason.ADDRESS_REFUSED, "private or special address")
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, aiohttp.InvalidURL | ValueError):
            return NetError(Reason.CLIENT_ERROR, "the URL can't be used")
        return NetError(Reason.CONNECTION, type(error).__name__)
