"""Stores of every shape, from real servers: alone, with TLS, behind Sentinel, as a cluster.

Owns: starting, wiring and breaking them. Must never: leave a server behind, or
listen beyond loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from proxy.store.embedded import find_binary
from tests.rig import wait_for
from tests.unit.store.support import free_port

BINARIES = {"valkey": find_binary(), "redis": shutil.which("redis-server") or ""}
SECONDS = 60


class Node:
    """One server process on a port of its own, its data kept over restarts."""

    def __init__(self, binary: str, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder / f"node-{self.port}"
        self.folder.mkdir(parents=True)
        self._command = [binary, *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as out:
            self.process = subprocess.Popen(self._command, cwd=self.folder, stdout=out, stderr=out)

    def kill(self, sign: int = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, sign)
            self.process.wait(20)

    @property
    def client(self) -> Any:
        """A plain client of this one server."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=5)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client as client:
            return bool(client.ping())
        return False


class Topology:
    """Several nodes, gone with the block; ``url`` is where a store connects."""

    url = ""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        self.folder = Path(tempfile.mkdtemp(prefix="tw-topology-"))
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def build(self) -> None:
        """Start the nodes and wait until they are one store."""
        raise NotImplementedError

    def node(self, *arguments: str) -> Node:
        """Start a server that writes an append-only file."""
        while (port := free_port()) > 55_000:
            pass  # a cluster's nodes talk on this port + 10,000
        own = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        node = Node(self.binary, self.folder, *own, *arguments, port=port)
        node.start()
        self.nodes.append(node)
        wait_for(node.answers, SECONDS, f"a server on {port}")
        return node


class Secure(Topology):
    """One server that speaks TLS alone, with a certificate of an authority of its own."""

    def build(self) -> None:
        self.certificates()
        port = free_port()
        files = [self.folder / name for name in ("server.crt", "server.key", "ca.crt")]
        arguments = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"]
        arguments += ["--tls-cert-file", str(files[0]), "--tls-key-file", str(files[1])]
        arguments += ["--tls-ca-cert-file", str(files[2]), "--tls-auth-clients", "no"]
        node = Node(self.binary, self.folder, *arguments, "--requirepass", "of-tls", port=port)
        node.start()
        self.nodes.append(node)
        self.ca_file = str(files[2])
        self.url = f"rediss://:of-tls@localhost:{port}/0"

        def answers() -> bool:
            with contextlib.suppress(redis.RedisError):
                link = redis.Redis.from_url(self.url, ssl_ca_certs=self.ca_file)
                return bool(link.ping())
            return False

        wait_for(answers, SECONDS, "a TLS server")

    def certificates(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(
                ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True
            )

        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        for name in ("ca", "other"):
            out = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}")
            openssl("req", "-x509", *new, *out, "-days", "2")
        openssl(
            "req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"
        )
        (self.folder / "names").write_text("subjectAltName=DNS:localhost\n")
        by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-in", "server.csr", *by, "-out", "server.crt", "-days", "2")


class Guarded(Topology):
    """A primary, two copies, and three sentinels that agree who is primary."""

    def build(self) -> None:
        primary = self.node()
        for _ in range(2):
            self.node("--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0")
        self.sentinels = [self.sentinel(primary.port) for _ in range(3)]
        hosts = ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/weir"

        def agreed() -> bool:
            state = self.sentinels[0].client.sentinel_master("weir")
            return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 2

        wait_for(agreed, SECONDS, "sentinels that know each other")

    def sentinel(self, primary: int) -> Node:
        port = free_port()
        file = self.folder / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor weir 127.0.0.1 {primary} 2\n"
            "sentinel down-after-milliseconds weir 700\nsentinel failover-timeout weir 3000\n"
        )
        node = Node(self.binary, self.folder, str(file), "--sentinel", port=port)
        node.start()
        self.nodes.append(node)
        wait_for(node.answers, SECONDS, "a sentinel")
        return node

    def primary(self) -> Node:
        """Whom the sentinels name."""
        _, port = self.sentinels[0].client.sentinel_get_master_addr_by_name("weir")
        return next(n for n in self.nodes if n.port == int(port))


class Spread(Topology):
    """Three masters that share the slots, and a copy of the first."""

    def build(self) -> None:
        more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]
        more += ["--cluster-require-full-coverage", "no"]
        self.masters = [self.node(*more) for _ in range(3)]
        self.copy = self.node(*more)
        ranges = ((0, 5461), (5462, 10922), (10923, 16383))
        for node, (first, last) in zip(self.masters, ranges, strict=True):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in (*self.masters[1:], self.copy):
            self.masters[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        hosts = ",".join(f"127.0.0.1:{n.port}" for n in self.masters)
        self.url = f"redis+cluster://{hosts}"
        everyone = (*self.masters, self.copy)
        wait_for(lambda: all(self.known(n) == 4 for n in everyone), SECONDS, "one cluster")
        first = self.id_of(self.masters[0])
        self.copy.client.execute_command("CLUSTER", "REPLICATE", first)
        wait_for(lambda: all(self.sound(n) for n in everyone), SECONDS, "a sound cluster")
        wait_for(
            lambda: self.copy.client.info("replication")["master_link_status"] == "up",
            SECONDS,
            "the copy has everything",
        )

    def known(self, node: Node) -> int:
        return len(node.client.execute_command("CLUSTER NODES"))

    def sound(self, node: Node) -> bool:
        return str(node.client.execute_command("CLUSTER INFO")["cluster_state"]) == "ok"

    def id_of(self, node: Node) -> str:
        return str(node.client.execute_command("CLUSTER", "MYID"))

    def slot_of(self, key: str) -> int:
        return int(self.masters[1].client.execute_command("CLUSTER", "KEYSLOT", key))

    def owner(self, slot: int) -> Node:
        for start, end, primary, *_ in self.masters[1].client.execute_command("CLUSTER SLOTS"):
            if start <= slot <= end:
                return next(n for n in self.nodes if n.port == primary[1])
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, slot: int, to: Node) -> None:
        """Move a slot and its keys, as a resharding does, while it is in use."""
        source = self.owner(slot)
        setslot = ("CLUSTER", "SETSLOT", slot)
        to.client.execute_command(*setslot, "IMPORTING", self.id_of(source))
        source.client.execute_command(*setslot, "MIGRATING", self.id_of(to))
        deadline = time.monotonic() + SECONDS
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            assert time.monotonic() < deadline, "the slot never emptied"
            source.client.execute_command(
                "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys
            )
            time.sleep(0.02)
        for node in (to, source, *self.masters):
            node.client.execute_command(*setslot, "NODE", self.id_of(to))
