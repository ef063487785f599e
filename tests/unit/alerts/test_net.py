"""The way out: which addresses are refused, and when."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.alerts.net import NetError, is_allowed
from proxy.alerts.outcome import Reason
from tests.unit.alerts.rig import answer, endpoint, network

REFUSED = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_special_addresses_are_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, ())


@given(st.ip_addresses(v=4, network="10.0.0.0/8"))
def test_wrapping_an_address_hides_nothing(inner: Any) -> None:
    assert not is_allowed(f"::ffff:{inner}", ())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]",
     "[::ffff:127.0.0.1]", "0"],
)  # fmt: skip
async def test_every_spelling_of_loopback_is_refused_at_connect(host: str) -> None:
    async with endpoint() as here, network(allowed=()) as net:
        port = here.url.rpartition(":")[2]
        with pytest.raises(NetError) as error:
            await net.send(f"http://{host}:{port}/", b"{}", {})
        assert here.seen == []
    refused = error.value.outcome.reason
    assert refused is Reason.ADDRESS_REFUSED or (
        host in ("0x7f000001", "0177.0.0.1", "127.1", "2130706433", "0")
        and refused in (Reason.CONNECTION, Reason.CLIENT_ERROR)
    )


async def test_a_name_that_changes_its_address_is_checked_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The resolver first says a public address, and loopback when the socket is made."""
    answers = iter(["93.184.216.34", "127.0.0.1"])

    async def resolve(self: Any, host: str, port: int = 0, family: int = 0) -> list[Any]:
        return [
            {"hostname": host, "host": next(answers), "port": port, "family": socket.AF_INET,
             "proto": 0, "flags": 0}
        ]  # fmt: skip

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", resolve)
    async with endpoint() as here, network(allowed=(), timeout_seconds=1.0) as net:
        port = here.url.rpartition(":")[2]
        await net._open()._connector._resolve_host("hooks.example.test", int(port))
        with pytest.raises(NetError) as error:
            await net.send(f"http://hooks.example.test:{port}/", b"{}", {})
        assert here.seen == []
    assert error.value.outcome.reason is Reason.ADDRESS_REFUSED


async def test_redirects_are_not_followed() -> None:
    async with endpoint() as here, network() as net:
        here.respond = answer(307, Location=f"{here.url}/elsewhere")
        got = await net.send(f"{here.url}/a", b"{}", {})
        assert got.outcome().reason is Reason.REDIRECTED
        assert not got.outcome().retry
        assert len(here.seen) == 1


async def test_allowed_redirects_stay_on_their_host() -> None:
    async with endpoint() as here, endpoint() as other, network(follow_redirects=True) as net:
        here.respond = answer(307, Location="/b")
        with pytest.raises(NetError):
            await net.send(f"{here.url}/a", b"{}", {})
        assert [seen.path for seen in here.seen] == ["/a", "/b", "/b", "/b"]
        here.respond = answer(308, Location=f"{other.url}/steal")
        with pytest.raises(NetError):
            await net.send(f"{here.url}/a", b"{}", {"Authorization": "secret"})
        assert other.seen == []


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("1e9", 86_400.0), ("soon", None),
     ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0)],
)  # fmt: skip
async def test_retry_after_in_both_forms(value: str, seconds: float | None) -> None:
    async with endpoint() as here, network() as net:
        here.respond = answer(429, Retry_After=value)
        assert (await net.send(here.url, b"", {})).retry_after_seconds == seconds
