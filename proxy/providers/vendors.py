"""Who bills a call: the vendor behind a host.

Owns: the table of hosts. Must never: guess from anything that a client controls
but the upstream that was configured.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Host suffix -> vendor. The longest suffix wins.
_HOSTS = {
    "api.openai.com": "openai",
    "chatgpt.com": "chatgpt",
    "openai.azure.com": "azure_openai",
    "cognitiveservices.azure.com": "azure_openai",
    "api.cognitive.microsoft.com": "azure_openai",
    "services.ai.azure.com": "azure_ai",
    "models.ai.azure.com": "azure_ai",
    "inference.ai.azure.com": "azure_ai",
    "inference.ml.azure.com": "azure_ai",
    "models.inference.ai.azure.com": "github_models",
    "models.github.ai": "github_models",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "aiplatform.googleapis.com": "vertex",
    "firebasevertexai.googleapis.com": "vertex",
    "api.mistral.ai": "mistral",
    "codestral.mistral.ai": "mistral",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.groq.com": "groq",
    "x.ai": "xai",
    "api.deepseek.com": "deepseek",
    "openrouter.ai": "openrouter",
    "together.xyz": "together",
    "together.ai": "together",
    "api.perplexity.ai": "perplexity",
    "api.cerebras.ai": "cerebras",
    "api.fireworks.ai": "fireworks",
    "huggingface.co": "huggingface",
    "endpoints.huggingface.cloud": "huggingface",
    "hf.space": "huggingface",
    "ollama.com": "ollama",
    "api.cloudflare.com": "cloudflare",
    "gateway.ai.cloudflare.com": "cloudflare",
    "api.replicate.com": "replicate",
    "api.voyageai.com": "voyage",
    "api.jina.ai": "jina",
    "api.ai21.com": "ai21",
    "api.aleph-alpha.com": "aleph_alpha",
    "api.avian.io": "avian",
    "inference.baseten.co": "baseten",
    "api.baseten.co": "baseten",
    "api.githubcopilot.com": "copilot",
    "githubcopilot.com": "copilot",
    "crusoecloud.com": "crusoe",
    "api.doubleword.ai": "doubleword",
    "dashscope.aliyuncs.com": "alibaba",
    "dashscope-intl.aliyuncs.com": "alibaba",
    "dashscope-us.aliyuncs.com": "alibaba",
    "dashscope-finance.aliyuncs.com": "alibaba",
    "aliyuncs.com": "alibaba",
    "inference.heroku.com": "heroku",
    "text.pollinations.ai": "pollinations",
    "pollinations.ai": "pollinations",
    "api.portkey.ai": "portkey",
    "snowflakecomputing.com": "snowflake",
    "api.venice.ai": "venice",
    "ai-gateway.vercel.sh": "vercel_gateway",
    "api.v0.dev": "vercel",
    "ml.cloud.ibm.com": "watsonx",
    "api.writer.com": "writer",
    "xiaomimimo.com": "xiaomi",
    "api.z.ai": "zai",
    "bigmodel.cn": "zai",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "api.minimax.io": "minimax",
    "api.minimax.chat": "minimax",
    "api.minimaxi.com": "minimax",
    "api.sambanova.ai": "sambanova",
    "api.hyperbolic.xyz": "hyperbolic",
    "api.novita.ai": "novita",
    "api.deepinfra.com": "deepinfra",
    "studio.nebius.ai": "nebius",
    "studio.nebius.com": "nebius",
    "tokenfactory.nebius.com": "nebius",
    "api.nscale.com": "nscale",
    "inference.api.nscale.com": "nscale",
    "featherless.ai": "featherless",
    "api.lambda.ai": "lambda",
    "api.lambdalabs.com": "lambda",
    "api.inference.net": "inference_net",
    "integrate.api.nvidia.com": "nvidia",
    "ai.api.nvidia.com": "nvidia",
    "api.nvcf.nvidia.com": "nvidia",
    "api.siliconflow.cn": "siliconflow",
    "api.siliconflow.com": "siliconflow",
    "api.stepfun.com": "stepfun",
    "api.hunyuan.cloud.tencent.com": "tencent",
    "qianfan.baidubce.com": "baidu",
    "volces.com": "volcengine",
    "api.galadriel.com": "galadriel",
    "mira.network": "mira",
    "api.upstage.ai": "upstage",
    "api.reka.ai": "reka",
    "api.friendli.ai": "friendli",
    "api.scaleway.ai": "scaleway",
    "api.publicai.co": "publicai",
    "api.morphllm.com": "morph",
    "api.inceptionlabs.ai": "inception",
    "llm.chutes.ai": "chutes",
    "api.targon.com": "targon",
    "endpoints.ai.cloud.ovh.net": "ovhcloud",
    "endpoints.kepler.ai.cloud.ovh.net": "ovhcloud",
    "api.llama.com": "meta",
    "api.elevenlabs.io": "elevenlabs",
    "api.deepgram.com": "deepgram",
    "api.assemblyai.com": "assemblyai",
    "api.stability.ai": "stability",
    "fal.run": "fal",
    "api.bfl.ai": "bfl",
    "api.bfl.ml": "bfl",
    "api.poe.com": "poe",
    "nano-gpt.com": "nanogpt",
    "api.requesty.ai": "requesty",
    "api.synthetic.new": "synthetic",
    "opencode.ai": "opencode",
    "api.aimlapi.com": "aimlapi",
    "databricks.com": "databricks",
    "azuredatabricks.net": "databricks",
    "octoai.run": "octoai",
    "api.endpoints.anyscale.com": "anyscale",
    "nlpcloud.io": "nlpcloud",
    "helicone.ai": "helicone",
    "api.litellm.ai": "litellm",
    "api.kimi.com": "moonshot",
    "api.sarvam.ai": "sarvam",
    "api.cometapi.com": "cometapi",
}
_AWS = re.compile(r"(?:^|\.)(bedrock[a-z-]*)\.[^.]+(?:\.api\.aws|\.amazonaws\.com(?:\.cn)?)$")
_SAGEMAKER = re.compile(r"^runtime\.sagemaker\.")
#: Servers that people run themselves, by the port that each listens on by default.
_LOCAL_PORTS = {
    "11434": "ollama",
    "1234": "mistralrs",
    "8000": "vllm",
    "8080": "llamacpp",
    "30000": "sglang",
    "4000": "litellm",
}
_LOCAL_HOSTS = frozenset(("localhost", "127.0.0.1", "0.0.0.0", "::1", "host.docker.internal"))  # noqa: S104
_OLLAMA_PATH = re.compile(
    r"/api/(?:chat|generate|tags|show|pull|push|embed|embeddings|ps|version|create|copy|delete)$"
)


@lru_cache(maxsize=1024)
def provider_of(host: str, path: str = "") -> str:
    """The vendor that bills calls to a host; ``unknown`` for a host of no vendor's.

    Parameters
    ----------
    host : str
        A host name, with or without a port.
    path : str
        Helps with servers on this machine, which share their host.
    """
    name = host.strip().lower()
    port = ""
    if name.startswith("["):
        name, _, port = name[1:].partition("]")
        port = port.lstrip(":")
    elif name.count(":") == 1:
        name, _, port = name.partition(":")
    name = name.rstrip(".")
    if "aiplatform" in name and name.endswith("-aiplatform.googleapis.com"):
        return "vertex"
    aws = _AWS.search(name)
    if aws:
        return "bedrock_agents" if "agent" in aws[1] else "bedrock"
    if _SAGEMAKER.match(name):
        return "sagemaker"
    labels = name.split(".")
    for start in range(len(labels) - 1):
        vendor = _HOSTS.get(".".join(labels[start:]))
        if vendor:
            return vendor
    if name in _LOCAL_HOSTS:
        if port == "11434" or _OLLAMA_PATH.search(path):
            return "ollama"
        if port:
            return _LOCAL_PORTS.get(port, "unknown")
        return "llamacpp" if path.endswith(("/completions", "/models", "/metrics")) else "unknown"
    return "unknown"
