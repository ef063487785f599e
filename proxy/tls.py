"""TLS on our own ports.

Owns: the ports' certificates, when they end, and taking renewed files without a
restart. Must never: replace a certificate that works by files that don't.
"""

from __future__ import annotations

import ssl
from calendar import timegm
from dataclasses import dataclass
from pathlib import Path
from time import strptime

import structlog

from proxy.http.settings import TLSSettings

_log = structlog.get_logger("tokenweir.tls")

_SEQUENCE, _EXPLICIT_0, _UTC_TIME = 0x30, 0xA0, 0x17


@dataclass
class _Port:
    name: str
    settings: TLSSettings
    context: ssl.SSLContext
    seen: tuple[int, int]


class Certificates:
    """The certificates of this process's ports.

    ``ends`` gets the end of each one's validity, in epoch seconds, by port name.
    """

    def __init__(self, ends: dict[str, float]) -> None:
        self._ends = ends
        self._ports: list[_Port] = []

    def context(self, port: str, settings: TLSSettings | None) -> ssl.SSLContext | None:
        """A context for a listener; ``None`` where the port speaks plain HTTP.

        Raises
        ------
        OSError
            Naming the file, where one can't be read or the two don't belong together.
        """
        if settings is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        held = _Port(port, settings, context, (0, 0))
        self._load(held)
        self._ports.append(held)
        return context

    def refresh(self) -> None:
        """Take renewed files for connections to come; on a fault the old ones stay."""
        for port in self._ports:
            try:
                if _written(port.settings) != port.seen:
                    self._load(port)
                    _log.info("certificate_renewed", port=port.name)
            except OSError as error:
                _log.error("certificate_unusable", port=port.name, reason=str(error))

    def _load(self, port: _Port) -> None:
        settings = port.settings
        written = _written(settings)
        try:
            # Into a context of its own first: loading a chain and then failing on its
            # key would leave the listener's context with half of each.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.certificate_file, settings.key_file
            )
            port.context.load_cert_chain(settings.certificate_file, settings.key_file)
            pem = Path(settings.certificate_file).read_text()
            self._ends[port.name] = not_after(ssl.PEM_cert_to_DER_cert(_first(pem)))
        except (ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None) or str(error)
            raise OSError(
                f"server: {settings.certificate_file} and {settings.key_file} can't be used "
                f"for TLS: {why}"
            ) from None
        port.seen = written


def _written(settings: TLSSettings) -> tuple[int, int]:
    certificate, key = Path(settings.certificate_file), Path(settings.key_file)
    return certificate.stat().st_mtime_ns, key.stat().st_mtime_ns


def _first(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    head, found, _ = pem[pem.find("-----BEGIN CERTIFICATE-----") :].partition(end)
    return head + found


def not_after(der: bytes) -> float:
    """When a certificate ends, in epoch seconds (RFC 5280, 4.1).

    Raises ValueError where the bytes are no certificate.
    """
    try:
        certificate = _open(der, 0, _SEQUENCE)
        place = _open(der, certificate, _SEQUENCE)
        if der[place] == _EXPLICIT_0:
            place = _skip(der, place)
        for _ in ("serialNumber", "signature", "issuer"):
            place = _skip(der, place)
        validity = _open(der, place, _SEQUENCE)
        end = _skip(der, validity)
        start, length = _value(der, end)
        text = der[start : start + length].decode("ascii")
        if der[end] == _UTC_TIME:
            text = ("20" if int(text[:2]) < 50 else "19") + text
        return float(timegm(strptime(text, "%Y%m%d%H%M%SZ")))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _value(der: bytes, place: int) -> tuple[int, int]:
    """Where the value of the element at a place begins, and its length."""
    length = der[place + 1]
    if length < 0x80:
        return place + 2, length
    more = length & 0x7F
    return place + 2 + more, int.from_bytes(der[place + 2 : place + 2 + more], "big")


def _skip(der: bytes, place: int) -> int:
    start, length = _value(der, place)
    return start + length


def _open(der: bytes, place: int, tag: int) -> int:
    if der[place] != tag:
        raise ValueError("not a certificate")
    return _value(der, place)[0]
