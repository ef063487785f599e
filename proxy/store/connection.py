"""The link to Redis or Valkey: every topology, one way to call.

Owns: clients, timeouts, the breaker, and what an error means. Must never:
repeat a write by itself (a lost reply may have been executed; callers make
their scripts idempotent), or wait without a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis.asyncio as aioredis
from redis import exceptions as errors
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from proxy.store.breaker import Breaker
from proxy.store.errors import StoreForbiddenError, StoreRefusedError, StoreUnavailableError
from proxy.store.scripts import Script
from proxy.store.settings import StoreSettings

_AWAY = (
    errors.ConnectionError,
    errors.TimeoutError,
    errors.ReadOnlyError,
    errors.ClusterDownError,
    errors.TryAgainError,
    errors.MasterDownError,
    errors.ClusterError,
    errors.RedisClusterException,
    OSError,
    TimeoutError,
    # The client library writes to a transport that was lost a moment ago.
    AttributeError,
)
#: A script met a key whose slot is on its way to another node.
_MOVED_AWAY = "non local key"
_WRITES_REFUSED = ("OOM", "MISCONF", "NOREPLICAS")

REFUSED_SECONDS = 5.0

Client = aioredis.Redis


class Connection:
    """Calls scripts and commands; raises only the errors of ``proxy.store.errors``."""

    def __init__(
        self,
        settings: StoreSettings,
        url: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._url = urlsplit(url)
        self.breaker = Breaker(settings.breaker_failures, settings.breaker_seconds, monotonic)
        # Callers queue here for every topology, so that no pool is ever full.
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._fast: Any = self._client(settings.timeout_seconds)
        self._patient: Any = self._client(settings.query_timeout_seconds)
        self.calls = 0
        self._monotonic = monotonic
        self._refused: tuple[float, str] | None = None
        self.last_error: str | None = None
        self.answered = False

    # ---- calling ----

    async def run(
        self, script: Script, keys: list[str], args: list[Any], *, patient: bool = False
    ) -> Any:
        """Run a Lua script; all its keys share a hash tag.

        ``patient`` is for a page's question: it changes nothing, may take
        ``query_timeout_seconds``, and is asked again where a connection turns
        out to have died while it was idle. Anything else runs once.
        """
        return await self._guarded(lambda: self._evaluate(script, keys, args, patient), patient)

    async def command(self, *args: Any, patient: bool = True) -> Any:
        """Run one plain command; ``patient`` as for :meth:`run`."""
        client = self._patient if patient else self._fast
        return await self._guarded(lambda: client.execute_command(*args), patient)

    async def _evaluate(
        self, script: Script, keys: list[str], args: list[Any], patient: bool
    ) -> Any:
        client = self._patient if patient else self._fast
        try:
            return await client.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
        except errors.NoScriptError:
            return await client.execute_command("EVAL", script.source, len(keys), *keys, *args)

    async def _guarded(self, call: Callable[[], Awaitable[Any]], again: bool) -> Any:
        if not self.breaker.may_try():
            raise StoreUnavailableError(self.last_error or "the store is away")
        async with self._slots:
            self.calls += 1
            try:
                try:
                    reply = await call()
                except errors.ConnectionError:
                    if not again:
                        raise
                    reply = await call()
            except errors.NoPermissionError as error:
                self.breaker.succeeded()
                raise StoreForbiddenError(str(error)) from None
            except errors.AuthenticationError as error:
                self._note(error)
                raise StoreForbiddenError(str(error)) from None
            except _AWAY as error:
                self._note(error)
                if isinstance(error, errors.ReadOnlyError):
                    await self._forget_primary()
                raise StoreUnavailableError(self.last_error) from None
            except errors.ResponseError as error:
                self.breaker.succeeded()
                text = str(error)
                if isinstance(error, errors.OutOfMemoryError) or any(
                    word in text for word in _WRITES_REFUSED
                ):
                    text = f"{'OOM ' if isinstance(error, errors.OutOfMemoryError) else ''}{text}"
                    self._refused = self._monotonic(), text[:200]
                    raise StoreRefusedError(text[:200]) from None
                if _MOVED_AWAY in text:
                    raise StoreUnavailableError(text[:200]) from None
                raise
        self.breaker.succeeded()
        self.answered = True
        return reply

    @property
    def refused(self) -> str | None:
        """Why the store would not write, while it lately would not."""
        if self._refused is None or self._monotonic() - self._refused[0] > REFUSED_SECONDS:
            return None
        return self._refused[1]

    def _note(self, error: BaseException) -> None:
        self.breaker.failed()
        self.last_error = f"{type(error).__name__}: {error}"[:200]

    async def _forget_primary(self) -> None:
        """Our server is a replica now: connect afresh, wherever the name leads."""
        for client in (self._fast, self._patient):
            if isinstance(client, aioredis.Redis):
                await client.connection_pool.disconnect(inuse_connections=False)

    # ---- topologies ----

    def _options(self, timeout: float | None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "socket_timeout": timeout,
            "socket_connect_timeout": self._settings.connect_timeout_seconds,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        if self._url.username:
            options["username"] = unquote(self._url.username)
        if self._url.password:
            options["password"] = unquote(self._url.password)
        if self._url.scheme.startswith("rediss"):
            options |= self._tls()
        return options

    def _tls(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "ssl_ca_certs": settings.ca_file,
            "ssl_certfile": settings.cert_file,
            "ssl_keyfile": settings.key_file,
            "ssl_cert_reqs": "required" if settings.verify else "none",
            "ssl_check_hostname": settings.verify,
        }

    def _database(self) -> int:
        asked = parse_qs(self._url.query).get("db", [""])[0] or (
            self._url.path.strip("/") if self._url.scheme in ("redis", "rediss") else ""
        )
        return int(asked) if asked.isdigit() else 0

    def _client(self, timeout: float | None) -> Any:
        scheme = self._url.scheme
        if scheme.endswith("+cluster"):
            return self._cluster(timeout)
        if scheme.endswith("+sentinel"):
            return self._sentinel(timeout)
        return self._single(timeout)

    def _single(self, timeout: float | None) -> Client:
        options = self._options(timeout)
        if self._url.scheme == "unix":
            options["path"] = unquote(self._url.path)
            kind: Any = aioredis.UnixDomainSocketConnection
            options["db"] = self._database()
        else:
            options["host"] = self._url.hostname or "localhost"
            options["port"] = self._url.port or 6379
            options["db"] = self._database()
            secure = self._url.scheme == "rediss"
            kind = aioredis.SSLConnection if secure else aioredis.Connection
        return aioredis.Redis.from_pool(aioredis.ConnectionPool(connection_class=kind, **options))

    def _sentinel(self, timeout: float | None) -> Client:
        options = self._options(timeout)
        secure = self._url.scheme == "rediss+sentinel"
        plain = {k: v for k, v in options.items() if k not in ("username", "password")}
        name, _, database = self._url.path.strip("/").partition("/")
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            _hosts(self._url, 26379),
            sentinel_kwargs={**plain, "socket_timeout": timeout, "ssl": secure},
        )
        return cast(
            Client,
            sentinel.master_for(
                name, ssl=secure, db=int(database) if database.isdigit() else 0, **options
            ),
        )

    def _cluster(self, timeout: float | None) -> Any:
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in _hosts(self._url, 6379)],
            ssl=self._url.scheme.startswith("rediss"),
            require_full_coverage=False,
            max_connections=self._settings.max_connections,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **self._options(timeout),
        )

    async def listener(self) -> Client:
        """A client of its own for pub/sub, which waits without a timeout."""
        if not self._url.scheme.endswith("+cluster"):
            return cast(Client, self._client(None))
        nodes = self._patient.get_primaries()
        if not nodes:
            await self.command("PING")
            nodes = self._patient.get_primaries()
        node = nodes[0]
        options = self._options(None) | {"ssl": self._url.scheme.startswith("rediss")}
        return aioredis.Redis(host=node.host, port=node.port, **options)

    async def close(self) -> None:
        """Close every connection."""
        for client in (self._fast, self._patient):
            await client.aclose()


def _hosts(url: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """The host list of a sentinel or cluster URL."""
    hosts: list[tuple[str, int]] = []
    for part in url.netloc.rpartition("@")[2].split(","):
        host, _, port = part.rpartition(":") if ":" in part else (part, "", "")
        hosts.append((host.strip("[]"), int(port) if port else default_port))
    return hosts
