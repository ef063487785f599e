"""From what happens to what open dashboards are told.

Owns: the small JSON of ``incident`` and ``action`` events. Must never: block the
part that tells, or send more than a page needs to know that it should look again.
"""

from __future__ import annotations

from typing import Any

from proxy.admin.deps import AdminDeps
from proxy.incidents_model import IncidentEvent


def connect(deps: AdminDeps) -> None:
    """Subscribe the hub to the incident book and to enforcement."""
    hub = deps.hub

    def on_incident(event: IncidentEvent) -> None:
        incident = event.incident
        # An event of several projects is told to those who may see all.
        project = incident.projects[0] if len(incident.projects) == 1 else None
        hub.publish(
            "incident",
            {
                "kind": event.kind,
                "id": incident.id,
                "state": incident.state,
                "tier": incident.tier.label,
                "signal": incident.signal,
                "series": incident.series._asdict(),
            },
            project,
        )

    def on_action(change: Any) -> None:
        hub.publish("action", change if isinstance(change, dict) else {})

    if deps.incidents is not None:
        deps.incidents.subscribe(on_incident)
    if deps.control is not None:
        deps.control.on_action(on_action)
