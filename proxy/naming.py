"""How a worker names calls, and clients without naming them.

Owns: ids of calls, and keyed hashes of client networks. Must never: let an
address be read back from what it gives out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from proxy.http.identity import client_network

_MOST_REMEMBERED = 100_000


def client_hasher(key: bytes) -> Callable[[str], str]:
    """Keyed hashes of client networks, remembered."""
    known: dict[str, str] = {}

    def hashed(address: str) -> str:
        found = known.get(address)
        if found is None:
            network = client_network(address).encode()
            found = "net_" + hashlib.blake2b(network, digest_size=6, key=key).hexdigest()
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            known[address] = found
        return found

    return hashed


def id_maker(replica: str) -> Callable[[], str]:
    """Ids that no other worker gives: replica, start, number."""
    prefix = f"{replica[:6]}-{time.time_ns() // 1_000_000:x}-"
    number = 0

    def make() -> str:
        nonlocal number
        number += 1
        return f"{prefix}{number:x}"

    return make
