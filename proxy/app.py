"""One worker: everything built, wired, started and stopped.

Owns: which part gets which other part, and the order of start and stop. Must
never: hold logic of a part; this is the only file that knows them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from detection.contrib import Recorder
from detection.engine import Engine
from detection.policy import Policy
from proxy import config
from proxy.admin.app import AdminServer
from proxy.admin.deps import AdminDeps
from proxy.admin.health import Health
from proxy.admin.reader import Reader
from proxy.alerts.service import AlertService
from proxy.background import Background
from proxy.call_log import CallLog
from proxy.config import Settings
from proxy.dearest import DearestRates
from proxy.enforcement import Enforcement
from proxy.garbage import WholeLook
from proxy.gate import Gate
from proxy.http.deadlines import Deadlines
from proxy.http.identity import NameCap
from proxy.http.listening import Listening
from proxy.http.outbox import Outbox
from proxy.http.pool import Pools
from proxy.http.ports import RunningCalls, Services
from proxy.http.routing import Router
from proxy.http.server import DataServer
from proxy.http.signing import Signer
from proxy.incidents import BookRules, IncidentBook, fleet_spend
from proxy.journal import Journal
from proxy.judge import Judge
from proxy.keeping import Memory
from proxy.keys import KeyRing, derived, install_secret
from proxy.ledger import Ledger, count_left_behind
from proxy.live_drill import LiveDrills
from proxy.meter import Meter
from proxy.metrics import Exposition, RuntimeMetrics, process_readings
from proxy.metrics_usage import usage_readings
from proxy.naming import client_hasher, id_maker
from proxy.otel import telemetry_of
from proxy.peers import Peers, socket_folder
from proxy.pricing import Pricer
from proxy.provider_limits import ProviderLimits
from proxy.reports import scheduled
from proxy.shadowed import TELL_SECONDS, SharedShadow
from proxy.states import state_checks, state_readings
from proxy.store.errors import StoreError
from proxy.store.store import Store
from proxy.tls import Certificates
from proxy.together import LOOK_SECONDS, SHARE_SECONDS, RepeatExchange, Sweeper
from proxy.version import VERSION
from proxy.welcome import data_url

_log = structlog.get_logger("tokenweir")
_KEEP_SECONDS = 60.0
_LOOK_SECONDS = 10.0
_CLIMB_SECONDS = 1.0


class App:
    """One worker's parts. ``index`` 0 also serves the admin port, for all workers."""

    def __init__(
        self,
        settings: Settings,
        *,
        overrides: Callable[[Settings], Settings],
        config_file: Path | None,
        listener: socket.socket,
        index: int,
    ) -> None:
        self.settings = settings
        self._overrides = overrides
        self._config_file = config_file
        self._listener = listener
        self._index = index
        self.background = Background()
        self._stop_watching = asyncio.Event()
        self._admin: AdminServer | None = None
        self.last_config_error: str | None = None
        self.runtime = RuntimeMetrics()
        self.limits = ProviderLimits()
        self.health = Health()
        self.certificates = Certificates(self.runtime.certificate_ends)

    # -- start -------------------------------------------------------------------

    async def start(self) -> None:
        """Build and start every part, the data port last."""
        settings, data = self.settings, self.settings.data_dir
        configured = settings.keys.install_secret
        secret = install_secret(data, configured.get_secret_value() if configured else None)
        self.store = await Store.open(settings.store, data, worker=str(self._index))
        self.clock = self.store.clock
        self._build_counting(data / "journal")
        self._build_judgement(secret)
        self._build_path(secret)
        self.exposition = Exposition(
            [
                self.runtime.readings,
                self.limits.readings,
                process_readings(VERSION),
                usage_readings(self.ledger),
                state_readings(self),
            ]
        )
        self.peers = Peers(socket_folder(data), self.journal.place, self.exposition.scrape)
        state_checks(self)
        if self.telemetry is not None:
            self.telemetry.start()
        await self.ledger.start()
        await self.enforcement.start()
        await self.alerts.start()
        await self.peers.start()
        self._background()
        if self._index == 0:
            self._admin = self._build_admin()
            await self._admin.start()
        await self.signer.refresh()
        tls = self.certificates.context("data", settings.server.tls)
        self._listening = Listening(self._listener, self.data_server, tls)
        self.runtime.config_loaded_at = self.clock()

    def _build_counting(self, journals: Path) -> None:
        settings = self.settings
        self.journal = Journal.first_free(journals, self._index, settings.journal, self.clock)
        self.ledger = Ledger(
            self.journal,
            self.store.counters,
            self.clock,
            tick_seconds=settings.store.tick_seconds,
            replicas=self.store.replicas,
        )
        self.pricer = Pricer(settings.pricing)
        self.recorder = Recorder(catch_up=self.ledger.totals)
        self.ledger.on_sums(self.recorder.add)

    def _build_judgement(self, secret: bytes) -> None:
        settings, store = self.settings, self.store
        self.keys = KeyRing(secret, settings.keys, self.clock, settings.mode)
        self.gate = Gate(
            # Bound: to call an instance takes a look-up of its class each time.
            clock=self.clock.__call__,
            rates=DearestRates(self.pricer, self.clock).of,
            keys=self.keys,
            mode=settings.mode,
            limits=settings.limits,
            budgets=settings.budgets,
            protect=settings.protect,
            blast_radius=settings.blast_radius,
            link=self._link,
        )
        self.incidents = IncidentBook(
            store.documents,
            self.clock,
            recorder=self.recorder,
            spent=fleet_spend(store.counters),
            rules=BookRules.of(settings.alerts.incidents),
        )
        self.alerts = AlertService(
            settings.alerts,
            store.documents,
            self.clock,
            make_report=scheduled(store.counters, self.incidents.store, self.clock),
            delivered=self.incidents.delivered,
            base_url=self._admin_url,
        )
        self.incidents.subscribe(self.alerts.notify)
        self.enforcement = Enforcement(
            gate=self.gate,
            keys=self.keys,
            store=store,
            clock=self.clock,
            data_dir=settings.data_dir,
            index=self._index,
        )
        self.judge = Judge(
            engine=Engine(settings.detection),
            policy=Policy(settings.policies),
            enforcement=self.enforcement,
            incidents=self.incidents,
            runtime=self.runtime,
            now=self.clock,
        )
        self.enforcement.on_verdict(lambda verdict: self.judge.act([verdict]))
        self.enforcement.on_evidence(self.judge.evidence)
        self.incidents.on_dismissed(self.judge.dismissed)
        self.ledger.on_fleet(self.judge.fleet)
        self.repeats = RepeatExchange(
            self.judge,
            store.controls,
            replica=self.journal.replica,
            replicas=store.replicas,
            now=self.clock,
        )
        self.shadow = SharedShadow(
            self.gate.shadow, store.documents, self.journal.replica, self.clock
        )
        self.memory = Memory(
            lambda: self.engine,
            self.journal,
            settings.data_dir,
            self._index,
            lambda name: self.gate.shadow.forget(name.owns),
        )
        self.memory.recall()

    def _build_path(self, secret: bytes) -> None:
        settings, loop = self.settings, asyncio.get_running_loop()
        self.telemetry = telemetry_of(settings.otel, self.journal.replica)
        self.deadlines = Deadlines(loop)
        self.outbox = Outbox(loop, self.runtime)
        self.outbox.before, self.journal.gather = self.journal.flush, self.outbox.gather
        self.pools = Pools(loop, self.deadlines, self.outbox)
        self.signer = Signer(lambda: self.settings.all_upstreams.values())
        self.running = RunningCalls()
        self.drills = LiveDrills(
            lambda: self.engine,
            lambda: (self.settings.detection, self.settings.policies),
            self.clock,
        )
        self.meter = Meter(
            pricer=self.pricer,
            gate=self.gate,
            ledger=self.ledger,
            judge=self.judge,
            runtime=self.runtime,
            limits=self.limits,
            now=self.clock.__call__,
            listeners=(
                CallLog().observe,
                self.drills.observe,
                *((self.telemetry.observe,) if self.telemetry else ()),
            ),
        )
        self.services = Services(
            settings=settings.server,
            router=Router(settings.all_upstreams),
            pools=self.pools,
            signer=self.signer,
            keys=self.keys,
            gate=self.gate,
            meter=self.meter,
            runtime=self.runtime,
            names=NameCap(settings.server.max_tracked_names, self.gate.tells_apart),
            hash_client=client_hasher(derived(secret, "client")),
            fingerprint_key=derived(secret, "fingerprint-of-message"),
            trusted=tuple(ipaddress.ip_network(n) for n in settings.server.trusted_proxies),
            new_id=id_maker(self.journal.replica),
            monotonic=time.monotonic,
            running=self.running,
        )
        self.gate.on_cut(self.running.cut)
        self.data_server = DataServer(self.services, loop, self.deadlines, self.outbox)

    def _build_admin(self) -> AdminServer:
        settings = self.settings
        deps = AdminDeps(
            settings=settings.admin,
            data_dir=settings.data_dir,
            clock=self.clock,
            version=VERSION,
            scrape=self.peers.scrape,
            mode=lambda: str(self.settings.mode),
            data_url=lambda: data_url(self.settings, self.port),
            reader=Reader(self.store.counters, self.clock),
            runtime=self.runtime,
            health=self.health,
            environ=os.environ,
            store=self.store,
            ledger=self.ledger,
            engine=self.engine,
            gate=self.gate,
            control=self.enforcement,
            incidents=self.incidents,
            alerts=self.alerts,
            drills=self.drills,
            shadowed=self.shadow.rows,
            config=lambda: self.settings,
            reload=self.reload,
        )
        server = settings.server
        tls = self.certificates.context("admin", server.admin_tls)
        return AdminServer(deps, server.admin_host or server.host, server.admin_port, tls)

    # -- running -----------------------------------------------------------------

    def _background(self) -> None:
        work = self.background
        work.run("incidents", self.incidents.run())
        work.run("loop-watch", self.runtime.watch_loop())
        sweeper = Sweeper(self.judge, self.store.documents.lease, self.clock.monotonic)
        work.every("sweep", LOOK_SECONDS, sweeper.look)
        work.every("repeats", SHARE_SECONDS, self.repeats.tell)
        work.every("shadow", TELL_SECONDS, self.shadow.tell)
        work.every("climb", _CLIMB_SECONDS, self.judge.climb)
        work.every("keep", _KEEP_SECONDS, self.memory.keep)
        work.every("imported", _LOOK_SECONDS, self.memory.take_imported)
        work.every("aws-credentials", _KEEP_SECONDS, self.signer.refresh)
        work.every("garbage", _LOOK_SECONDS, WholeLook(self.runtime).look)
        work.every("forgetting", _LOOK_SECONDS, self.memory.forget)
        work.every("certificates", _LOOK_SECONDS, self.certificates.refresh)
        if self._index == 0:
            journals = self.settings.data_dir / "journal"
            counting = (self.store.counters, self.clock, self.settings.journal)
            work.once("left-behind", count_left_behind(journals, *counting))
        if self._config_file is not None:
            work.run(
                "config",
                config.watch(
                    self._config_file,
                    self._changed,
                    self._unreadable,
                    stop=self._stop_watching,
                ),
            )

    async def reload(self) -> None:
        """Read the file again, as a change of it would."""
        if self._config_file is None:
            return
        try:
            self._changed(await asyncio.to_thread(config.load, self._config_file))
        except config.ConfigError as error:
            self._unreadable(error)

    def _changed(self, settings: Settings) -> None:
        """Take new settings; ports, store and folders stay as they were started."""
        settings = self._overrides(settings)
        old, self.settings = self.settings, settings
        self.services.configure(settings.server)
        self.services.router = Router(settings.all_upstreams)
        self.background.once("aws-credentials", self.signer.refresh())
        self.pricer.configure(settings.pricing)
        self.keys.configure(settings.keys, settings.mode)
        self.gate.configure(
            settings.mode,
            settings.limits,
            settings.budgets,
            settings.protect,
            settings.blast_radius,
        )
        self.judge.configure(settings.detection, settings.policies)
        self.incidents.rules = BookRules.of(settings.alerts.incidents)
        self.alerts.configure(settings.alerts)
        self.last_config_error = None
        self.runtime.config_reloads["ok"] += 1
        self.runtime.config_loaded_at = self.clock()
        fixed = [
            n for n in ("data_dir", "store", "admin") if getattr(old, n) != getattr(settings, n)
        ]
        _log.info("config_reloaded", needs_restart=fixed)

    def _unreadable(self, error: config.ConfigError) -> None:
        self.last_config_error = "; ".join(error.lines())
        self.runtime.config_reloads["failed"] += 1
        _log.error("config_refused", faults=error.lines())

    # -- stop --------------------------------------------------------------------

    async def stop(self) -> None:
        """Say unready, let running calls finish, send what waits, close."""
        self.health.draining = True
        self._stop_watching.set()
        await self._listening.close()
        await self.data_server.drain(self.settings.server.drain_timeout_seconds)
        self.pools.close()
        await self.drills.stop()
        await self.background.stop()
        await self.memory.keep_now()
        with contextlib.suppress(StoreError):
            await self.shadow.tell()
        await self.alerts.stop()
        await self.enforcement.stop()
        if self._admin is not None:
            await self._admin.stop()
        await self.peers.stop()
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.close)
        await self.ledger.stop()
        await self.store.stop()
        self.deadlines.stop()

    @property
    def engine(self) -> Engine:
        """Detection; a reload can put a new one in its place."""
        return self.judge.engine

    # -- facts -------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The data port in use."""
        return int(self._listener.getsockname()[1])

    @property
    def admin_port(self) -> int:
        """The admin port in use; 0 in a worker that has none."""
        return self._admin.port if self._admin is not None else 0

    @property
    def sign_in_link(self) -> str:
        """A link that opens the dashboard once."""
        return self._admin.sign_in_link() if self._admin is not None else ""

    def _link(self, verdict: str) -> str:
        base, incident = self._admin_url(), self.incidents.id_of(verdict)
        return f"{base}/incidents/{incident}" if base and incident else ""

    def _admin_url(self) -> str:
        """Where the dashboard is; empty where only worker 0 knows the port."""
        admin, port = self.settings.admin, self.settings.server.admin_port
        known = self._admin.url if self._admin else f"http://127.0.0.1:{port}" if port else ""
        return admin.public_url or known
