"""What the control routes share: the enforcement, bodies, and who may see what.

Owns: these checks, once for all handlers. Must never: answer a request itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from detection.types import Dimension, Series
from proxy.admin.deps import AdminDeps
from proxy.admin.principal import Principal
from proxy.enforcement import Enforcement

_LONGEST_BODY = 2**20

Body = TypeVar("Body", bound=BaseModel)


def enforcement_of(deps: AdminDeps) -> Enforcement:
    """The enforcement, which must be there."""
    if deps.control is None:
        raise web.HTTPServiceUnavailable(text="enforcement is not running in this process")
    control: Enforcement = deps.control
    return control


def may_see(principal: Principal, series: Series) -> bool:
    """Whether a principal limited to projects may see what concerns a series."""
    if principal.projects is None:
        return True
    return series.dimension == Dimension.PROJECT and principal.allows_project(series.value)


async def read_body(request: web.Request, model: type[Body]) -> Body:
    """A JSON body as its model; 400 with every fault otherwise."""
    try:
        return model.model_validate_json(await request.content.read(_LONGEST_BODY))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors()
        )
        raise web.HTTPBadRequest(text=faults) from None


async def read_json(request: web.Request) -> dict[str, Any]:
    """A JSON object, empty where there is no body; 400 for anything else."""
    try:
        body = orjson.loads(await request.content.read(_LONGEST_BODY) or b"{}")
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="send a JSON object")
    return body
