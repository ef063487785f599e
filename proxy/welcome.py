"""What a person sees when the proxy has started.

Owns: the few lines with the dashboard's address and the export for each SDK. Must
never: print a secret but the one-time sign-in link.
"""

from __future__ import annotations

import os
from typing import Protocol

from detection.types import Mode
from proxy.config import Settings
from proxy.version import VERSION

_MODES = {
    Mode.ENFORCE: "enforce: loops and hard limits act from the first minute; "
    "statistical rules only observe while they learn",
    Mode.SHADOW: "shadow: it says what it would do, and lets everything pass",
    Mode.OBSERVE: "observe: it measures and tells, and touches nothing",
}


class Started(Protocol):
    """What the lines need of a running worker."""

    @property
    def port(self) -> int: ...
    @property
    def sign_in_link(self) -> str: ...


def data_url(settings: Settings, port: int) -> str:
    """How clients of this machine reach the data port."""
    host = settings.server.host
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.server.tls else 'http'}://{host}:{port}"


def welcome(settings: Settings, app: Started) -> str:
    """The lines, ready to be printed."""
    url = data_url(settings, app.port)
    lines = [
        f"tokenweir {VERSION}   mode {_MODES[settings.mode]}",
        f"  data      {url}   ({settings.server.workers} worker"
        f"{'s' if settings.server.workers > 1 else ''}, store {settings.store.url.split('@')[-1]})",
        f"  dashboard {app.sign_in_link}   (signs in once)",
    ]
    if not os.environ.get("TOKENWEIR_ADMIN_TOKEN"):
        lines.append(f"  API token {settings.data_dir / 'admin-token'}")
    lines += [
        "",
        "Point your apps here; name an agent with /@<agent>, or leave it out:",
        f"  export OPENAI_BASE_URL={url}/@my-agent/v1      # openai, Codex, LangChain",
        f"  export ANTHROPIC_BASE_URL={url}/@my-agent      # anthropic, Claude Code",
        f"  export GOOGLE_GEMINI_BASE_URL={url}/@my-agent  # google-genai, Gemini CLI",
        f"  mistralai: server_url={url}/mistral   Azure: azure_endpoint={url}/azure/<resource>",
        f"  boto3: AWS_ENDPOINT_URL_BEDROCK_RUNTIME={url}/bedrock/<region>",
        "",
    ]
    return "\n".join(lines) + "\n"
