"""Who is asking, and what they may.

Owns: roles, principals, and the check that a handler asks for. Must never:
read a credential; that is :mod:`proxy.admin.auth`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from aiohttp import web


class Role(IntEnum):
    """What a principal may do; each role may all that the lower ones may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """The word used in YAML and JSON."""
        return self.name.lower()


def role_of(word: str) -> Role:
    """The role of a word of the configuration.

    >>> role_of("operator") is Role.OPERATOR
    True
    """
    return Role[word.upper()]


@dataclass(frozen=True, slots=True)
class Principal:
    """One authenticated caller.

    ``projects`` is ``None`` for all projects. ``via`` is ``token``,
    ``session``, ``header`` or ``embed``.
    """

    name: str
    role: Role
    projects: frozenset[str] | None = None
    via: str = "token"

    def allows_project(self, project: str | None) -> bool:
        """Whether data of this project may be shown; ``None`` is "no project"."""
        return self.projects is None or (project is not None and project in self.projects)


def principal_of(request: web.Request) -> Principal:
    """The caller of a request that passed authentication."""
    principal: Principal = request["principal"]
    return principal


def require(request: web.Request, role: Role) -> Principal:
    """The caller, who must have at least this role.

    Raises
    ------
    aiohttp.web.HTTPForbidden
        With the role that is missing.
    """
    principal = principal_of(request)
    if principal.role < role:
        raise web.HTTPForbidden(
            text=f"this needs the role {role.label}; {principal.name} is {principal.role.label}"
        )
    return principal


def require_project(request: web.Request, project: str | None) -> Principal:
    """The caller, who must be allowed this project.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        The same answer as for a project that does not exist.
    """
    principal = principal_of(request)
    if not principal.allows_project(project):
        raise web.HTTPNotFound(text="not found")
    return principal


def require_all_projects(request: web.Request) -> Principal:
    """The caller, who must not be limited to some projects.

    Raises
    ------
    aiohttp.web.HTTPNotFound
        As if the resource did not exist.
    """
    principal = principal_of(request)
    if principal.projects is not None:
        raise web.HTTPNotFound(text="not found")
    return principal
