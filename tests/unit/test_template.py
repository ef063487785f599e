"""What follows from a head is the same whether it was worked out anew or from its kin."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy import config
from proxy.http.errors import RefusedError
from proxy.http.known import known_head
from proxy.http.request import Head, Template, make_template
from proxy.http.routing import Router
from proxy.keys import KeyRing
from tests.unit.test_known import parsed, spelled

Fields = tuple[tuple[str, str], ...]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VALUES = {
    "Authorization": ["Bearer sk-a", "Bearer sk-b", "tw-unknown", "Bearer tw_nobody"],
    "x-api-key": ["sk-c", "sk-d"],
    "X-Tokenweir-Agent": ["a", "b"],
    "x-tokenweir-tags": ["team=x", '{"team": "y"}', "{"],
    "helicone-property-App": ["web", "app"],
    "x-portkey-metadata": ['{"_user": "u"}', "{}"],
    "User-Agent": ["OpenAI/Python 2", "curl/8"],
    "X-Forwarded-For": ["10.1.2.3", "10.9.9.9"],
    "Content-Type": ["application/json", "text/plain"],
    "traceparent": [TRACE, TRACE.replace("b7ad", "aaaa"), "no"],
    "x-request-id": ["1", "22"],
}
#: Heads of one connection, each with the same fields, and whether it made a call.
HEADS = st.lists(st.sampled_from(sorted(VALUES)), unique=True, min_size=1).flatmap(
    lambda names: st.lists(
        st.tuples(
            st.tuples(*(st.tuples(st.just(n), st.sampled_from(VALUES[n])) for n in names)),
            st.booleans(),
        ),
        min_size=2,
        max_size=4,
    )
)
ROUTER = Router(config.defaults().all_upstreams)
SERVICES: Any = SimpleNamespace(
    router=ROUTER,
    keys=KeyRing(b"s" * 32, config.defaults().keys, lambda: 1000.0),
    hash_client=lambda address: f"net {address}",
    trusted=(),
)


def written(fields: Fields) -> bytes:
    return spelled([(name, ": ", value) for name, value in fields], b"{}", 0)


def head_of(fields: Fields) -> Head:
    head = parsed(written(fields))
    assert head is not None
    return head


def said(head: Head) -> Template | str:
    head.target = "/v1/chat/completions"
    try:
        return make_template(SERVICES, head, "10.0.0.1")
    except RefusedError as refused:
        return refused.refusal.message


@given(HEADS)
def test_a_varied_head_says_what_a_fresh_one_does(heads: list[tuple[Fields, bool]]) -> None:
    known = known_head(written(heads[0][0]), head_of(heads[0][0]))
    assert known is not None
    for (_, called), (fields, _) in pairwise(heads):
        if called and isinstance(template := said(known.head), Template):
            known.head.template = template
        varied = known.varied(written(fields), 65_536)
        if varied is None:
            return
        known = varied[0]
    assert said(known.head) == said(head_of(heads[-1][0]))
