"""The API does what its own description says, whatever it is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from proxy.admin.app import api_document
from proxy.version import VERSION
from tests.conftest import Recorder
from tests.e2e.test_alerts import call
from tests.e2e.test_runaway import STUCK
from tests.rig import TOKEN, Proxy, Upstream, running_proxy, wait_for

#: Requests per operation; more where somebody has the time.
EXAMPLES = int(os.environ.get("TOKENWEIR_API_EXAMPLES", "5"))
SCHEMA = schemathesis.openapi.from_dict(api_document(VERSION))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that has calls, an incident, keys, actions, silences, a dead letter."""
    with Upstream(Recorder()) as upstream:
        config = {
            "upstreams": {"openai": {"base_url": upstream.url}},
            "alerts": {
                "receivers": [{"name": "h", "type": "webhook", "url": "http://127.0.0.1:9/x"}],
                "route": {"receiver": "h"},
            },
            "budgets": [{"name": "all", "by": ["project"], "amount_usd": 100, "per": "month"}],
        }
        with running_proxy(tmp_path_factory.mktemp("api"), config) as proxy:
            for _ in range(40):
                call(proxy, "looper", STUCK)
            wait_for(lambda: proxy.api("/api/v1/incidents")["incidents"], 30, "an incident")
            wait_for(lambda: proxy.api("/api/v1/outbox")["dead"], 30, "a dead letter")
            proxy.api("/api/v1/silences", "POST", {"matchers": ['agent="x"'], "seconds": 60})
            proxy.api("/api/v1/maintenance", "POST", {"matchers": [], "seconds": 60})
            proxy.api("/api/v1/keys", "POST", {"name": "k1", "project": "web"})
            proxy.api(
                "/api/v1/actions",
                "POST",
                {"kind": "block", "dimension": "agent", "value": "x", "seconds": 600},
            )
            yield proxy


def test_what_is_served_is_what_is_documented(filled: Proxy) -> None:
    assert filled.api("/api/v1/openapi.json") == json.loads(json.dumps(api_document(VERSION)))


# The stream never ends; failed attempts to sign in would close the door for all that follows.
@SCHEMA.exclude(path="/api/v1/events").exclude(path="/api/v1/session", method="POST").parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_keeps_its_word(case: schemathesis.Case, filled: Proxy) -> None:
    answer = case.call(
        base_url=filled.admin, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
    )
    case.validate_response(answer, checks=CHECKS)
