"""Webhook steps of policies: a gateway of the user's is called, so that it can act.

Owns: which calls an incident's actions ask for, each once. Must never: send, or
call where the policy's mode is milder than enforce.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.alerts.message import Message, card_of
from proxy.incidents_model import Incident, short_hash

#: What is older was called by an earlier leader, or is of no use any more.
_LATEST_SECONDS = 3600.0


def calls_of(
    incidents: Iterable[Incident], made: set[str], external_url: str, now: float
) -> Iterator[Message]:
    """The messages of webhook steps that are not in ``made``; adds their ids there."""
    for incident in incidents:
        for action in incident.actions:
            name = action["id"]
            if action["kind"] != "webhook" or action["mode"] != "enforce" or name in made:
                continue
            if now - action["since"] > _LATEST_SECONDS or not action.get("receiver"):
                continue
            made.add(name)
            message = f"msg_{short_hash('call', name)}"
            yield Message(
                id=message,
                receiver=action["receiver"],
                kind="action",
                lane=message,
                title=action["rule"],
                cards=(card_of(incident, external_url),),
                created_at=now,
            )
