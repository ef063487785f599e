"""Writes docs/api.md from the API's own description: ``python -m tests.docs.api``.

Owns: how an OpenAPI document reads as a page. Must never: say anything of a path
that the served document doesn't say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.admin.app import api_document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"

HEAD = """# API

The admin port (8788 unless set) serves this API. What follows is written from the
OpenAPI 3.1 document that each running proxy serves at `GET /api/v1/openapi.json`;
`python -m tests.docs.api` renews the page.

**Signing in.** Send an admin token: `Authorization: Bearer <token>`. The first start
writes one to `<data_dir>/admin-token`; further ones, each with a role (`viewer`,
`operator`, `admin`) and, if wanted, limited to projects, stand in the configuration
under `admin.tokens`. Reading needs `viewer`, changing something `operator`, keys `admin`.

**Limits of a token.** Every answer holds only what the token's projects allow. What a
token may not see is answered as what doesn't exist: 404.

**Errors** are all alike, `{"error": {"status": 404, "message": "not found"}}`: 400 for
bad parameters, 401 without a valid token, 403 where the role is too low, 404, 409 where
the state forbids it, 413, 429 after too many failed attempts to sign in, 503 while the
store is away.

**Units.** Times are epoch seconds, money is integer nano-USD (10⁻⁹ dollars), except under
`/billing`, which speaks dollars as billing systems do.

```sh
curl -H "Authorization: Bearer $TOKEN" \\
  "http://127.0.0.1:8788/api/v1/incidents?state=all&tier=critical&format=csv"
```
"""

#: The page's chapters: the first whose prefix fits a path takes it.
CHAPTERS = (
    ("Incidents", ("/api/v1/incidents",)),
    ("Silences and maintenance windows", ("/api/v1/silences", "/api/v1/maintenance")),
    ("Alerts that wait", ("/api/v1/outbox",)),
    ("Billing", ("/billing/", "/api/v1/forecast", "/api/v1/report")),
    ("Usage and series", ("/api/v1/usage", "/api/v1/series", "/api/v1/export")),
    ("Keys", ("/api/v1/keys",)),
    (
        "Actions, budgets and policy",
        (
            "/api/v1/actions",
            "/api/v1/budgets",
            "/api/v1/policy",
            "/api/v1/explain",
            "/api/v1/shadow",
            "/api/v1/drill",
            "/api/v1/audit",
        ),
    ),
    ("Dashboard, health and signing in", ("/",)),
)


def chapter_of(path: str) -> str:
    """The chapter that a path stands in."""
    return next(name for name, prefixes in CHAPTERS if path.startswith(prefixes))


def type_words(schema: dict[str, Any]) -> str:
    """A schema in a few words.

    >>> type_words({"type": ["number", "null"], "minimum": 0})
    'number or null, from 0'
    """
    if "enum" in schema:
        words = " · ".join(f"`{one}`" for one in schema["enum"])
    elif "anyOf" in schema:
        words = " or ".join(type_words(one) for one in schema["anyOf"])
    else:
        kind = schema.get("type", "any")
        words = kind if isinstance(kind, str) else " or ".join(kind)
        if words == "array":
            words = f"list of {type_words(schema.get('items', {}))}"
    bounds = [
        f"{word} {schema[name]:,}{unit}"
        for name, word, unit in (
            ("minimum", "from", ""),
            ("exclusiveMinimum", "above", ""),
            ("maximum", "to", ""),
            ("maxLength", "at most", " characters"),
        )
        if name in schema
    ]
    if bounds:
        words += ", " + " ".join(bounds)
    if schema.get("default") not in (None, ""):
        words += f"; default `{schema['default']}`"
    return words


def fields_of(schema: dict[str, Any], names: str = "") -> list[tuple[str, str, str]]:
    """Name, type and description of every field, those within too.

    A schema with a title has a place of its own on the page and is only named.
    """
    found = []
    for name, inner in schema.get("properties", {}).items():
        full, text = f"{names}{name}", inner.get("description", "")
        within = inner.get("items", {}) if inner.get("type") == "array" else inner
        if "title" in within:
            found.append((full, f"{_many(inner)}{link_to(within['title'])}", text))
        elif "properties" in within:
            found.append((full, f"{_many(inner)}object", text))
            found += fields_of(within, f"{full}.")
        else:
            found.append((full, type_words(inner), text))
    return found


def _many(schema: dict[str, Any]) -> str:
    return "list of " if schema.get("type") == "array" else ""


def link_to(title: str) -> str:
    """A link to the place of a titled schema."""
    return f"[{title}](#{title.lower().replace(' ', '-')})"


def titled(schema: Any) -> dict[str, dict[str, Any]]:
    """All schemas with a title, by it."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(schema, dict):
        if "title" in schema and "properties" in schema and isinstance(schema["title"], str):
            found[schema["title"]] = schema
        for inner in schema.values():
            found |= titled(inner)
    return found


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "| " + " | ".join("---" for _ in head) + " |", *map(line, rows), ""]


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    lines = [f"### `{method.upper()} {path}`", "", operation["summary"] + ".", ""]
    if "description" in operation:
        lines += [operation["description"], ""]
    rows: list[tuple[str, ...]] = []
    for one in operation.get("parameters", []):
        need = " (required)" if one.get("required") else ""
        rows.append(
            (f"`{one['name']}`{need}", type_words(one["schema"]), one.get("description", ""))
        )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    wanted = body.get("schema", {}).get("required", [])
    for name, kind, text in fields_of(body.get("schema", {})):
        need = ", required" if name in wanted else ""
        rows.append((f"`{name}` (body{need})", kind, text))
    if rows:
        lines += _table(("parameter", "type", "meaning"), rows)
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            lines += _answer(status, answer)
    others = sorted(
        status
        for status in operation["responses"]
        if not status.startswith("2") and status not in ("400", "401", "403", "429")
    )
    if others:
        lines += ["May also answer " + ", ".join(others) + ".", ""]
    return lines


def _answer(status: str, answer: dict[str, Any]) -> list[str]:
    content = answer.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    others = ", ".join(f"`{form}`" for form in content if form != "application/json")
    line = f"Answers {status}: {answer['description']}."
    if "title" in schema:
        return [f"Answers {status}: {link_to(schema['title'])}.", ""]
    fields = fields_of(schema)
    line += f" As {others} too." if others and fields else f" As {others}." if others else ""
    return [line, "", *(_table(("field", "type", "meaning"), fields) if fields else [])]


def page() -> str:
    """The whole page."""
    document = api_document("")
    chapters: dict[str, list[str]] = {name: [] for name, _ in CHAPTERS}
    index: list[tuple[str, ...]] = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            chapters[chapter_of(path)] += _operation(method, path, operation)
    for name, prefixes in CHAPTERS:
        paths = [p for p in document["paths"] if chapter_of(p) == name and prefixes]
        anchor = name.lower().replace(" ", "-").replace(",", "")
        index.append((f"[{name}](#{anchor})", ", ".join(f"`{p}`" for p in paths)))
    lines = [HEAD, *_table(("what", "paths"), index)]
    for name, told in chapters.items():
        lines += [f"## {name}", "", *told]
    lines += ["## Shapes", ""]
    for title, schema in sorted(titled(document).items()):
        lines += [f"### {title}", "", *_table(("field", "type", "meaning"), fields_of(schema))]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
