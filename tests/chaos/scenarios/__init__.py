"""The faults, one module per group; importing this registers all of them.

Owns: the list of groups, and how to make the lab that each shares. Must never:
register a fault itself.
"""

from __future__ import annotations

from tests.chaos.scenarios import bodies, config, http_in, process, security, store_live, upstream

GROUPS = {
    module.__name__.rpartition(".")[2]: module.make_shared
    for module in (http_in, bodies, upstream, store_live, config, security, process)
}
