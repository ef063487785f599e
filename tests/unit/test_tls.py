"""TLS on our ports: real handshakes, renewed files, and files that are of no use."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.http.settings import TLSSettings
from proxy.tls import Certificates, not_after

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def issue(authority: trustme.CA, folder: Path, days: int) -> TLSSettings:
    held = authority.issue_cert("localhost", not_after=NOW + datetime.timedelta(days=days))
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in held.cert_chain_pems))
    held.private_key_pem.write_to_path(key)
    stamp = NOW.timestamp() + days
    os.utime(certificate, (stamp, stamp))
    return TLSSettings(certificate_file=str(certificate), key_file=str(key))


async def served_until(context: ssl.SSLContext, authority: trustme.CA) -> float:
    """When the certificate ends that a client is shown, as the client's own TLS reads it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        shown = writer.get_extra_info("peercert")["notAfter"]
        writer.close()
    return float(ssl.cert_time_to_seconds(shown))


async def test_a_renewed_certificate_is_shown_to_the_next_client(tmp_path: Path) -> None:
    authority, ends = trustme.CA(), {}
    certificates = Certificates(ends)
    context = certificates.context("data", issue(authority, tmp_path, 30))
    assert context is not None
    assert await served_until(context, authority) == ends["data"]
    issue(authority, tmp_path, 60)
    certificates.refresh()
    later = await served_until(context, authority)
    assert later == ends["data"] == (NOW + datetime.timedelta(days=60)).timestamp()


async def test_a_half_written_renewal_leaves_the_old_one(tmp_path: Path) -> None:
    authority, ends = trustme.CA(), {}
    certificates = Certificates(ends)
    context = certificates.context("data", issue(authority, tmp_path, 30))
    assert context is not None
    before = ends["data"]
    (tmp_path / "tls.key").write_bytes(authority.issue_cert("other").private_key_pem.bytes())
    os.utime(tmp_path / "tls.key", (1, 1))
    certificates.refresh()
    assert await served_until(context, authority) == before
    (tmp_path / "tls.crt").unlink()
    certificates.refresh()
    assert await served_until(context, authority) == before


def test_useless_files_are_named(tmp_path: Path) -> None:
    settings = issue(trustme.CA(), tmp_path, 30)
    (tmp_path / "tls.key").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    with pytest.raises(OSError, match=r"tls\.key can't be used for TLS: KEY_VALUES_MISMATCH"):
        Certificates({}).context("data", settings)
    (tmp_path / "tls.key").unlink()
    with pytest.raises(FileNotFoundError):
        Certificates({}).context("data", settings)
    assert Certificates({}).context("data", None) is None


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x03\x02\x01\x00", b"garbage" * 9])
def test_what_is_no_certificate_is_told(der: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        not_after(der)


def test_dates_after_2049_are_read_too() -> None:
    held = trustme.CA().issue_cert("x", not_after=datetime.datetime(2061, 1, 2, 3, 4, 5))
    der = ssl.PEM_cert_to_DER_cert(held.cert_chain_pems[0].bytes().decode())
    assert not_after(der) == datetime.datetime(2061, 1, 2, 3, 4, 5, tzinfo=datetime.UTC).timestamp()
