"""What a person sees when the proxy has started.

Owns: the few lines with the dashboard's address and the export for each SDK. Must
never: print a secret but the one-time sign-in link.
"""

from __future__ import annotations

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
    def data_url(self) -> str: ...
    @property
    def sign_in_link(self) -> str: ...
    @property
    def token_file(self) -> str | None: ...


def welcome(settings: Settings, app: Started) -> str:
    """The lines, ready to be printed."""
    url = app.data_url
    lines = [
        f"tokenweir {VERSION}   mode {_MODES[settings.mode]}",
        f"  data      {url}   ({settings.server.workers} worker"
        f"{'s' if settings.server.workers > 1 else ''}, store {settings.store.url.split('@')[-1]})",
        f"  dashboard {app.sign_in_link}   (signs in once)",
    ]
    if app.token_file:
        lines.append(f"  API token {app.token_file}")
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
