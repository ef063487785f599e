// The exact lines that point each client here. Owns: those texts, as a function of the address.

export function steps(dataUrl, agent) {
  const base = dataUrl.replace(/\/$/, "");
  const root = agent ? `${base}/@${encodeURIComponent(agent)}` : base;
  return [
    { name: "openai", lines: `export OPENAI_BASE_URL=${root}/v1`, note: "Python and JavaScript SDKs read it." },
    { name: "anthropic", lines: `export ANTHROPIC_BASE_URL=${root}`, note: "No /v1 at the end." },
    { name: "google-genai", lines: `export GOOGLE_GEMINI_BASE_URL=${root}`, note: "Or http_options.base_url in code." },
    { name: "mistralai", lines: `client = Mistral(api_key=os.environ["MISTRAL_API_KEY"],\n                 server_url="${root}/mistral")`, note: "The SDK reads no variable for this." },
    { name: "boto3 (Bedrock)", lines: `export AWS_ENDPOINT_URL_BEDROCK_RUNTIME=${root}/bedrock/us-east-1`, note: "With your region at the end. The proxy signs with its own AWS credentials." },
    { name: "Azure", lines: `client = AzureOpenAI(azure_endpoint="${root}/azure/YOUR-RESOURCE",\n                     api_version="2024-10-21")`, note: "YOUR-RESOURCE is the first part of the resource's address." },
    { name: "LangChain", lines: `export OPENAI_API_BASE=${root}/v1\nexport ANTHROPIC_API_URL=${root}`, note: "For ChatOpenAI and ChatAnthropic." },
    { name: "Claude Code", lines: `export ANTHROPIC_BASE_URL=${root}\nclaude`, note: "Sessions are told apart by its own header." },
    { name: "Codex", lines: `# ~/.codex/config.toml\nmodel_provider = "tokenweir"\n\n[model_providers.tokenweir]\nname = "Tokenweir"\nbase_url = "${root}/v1"\nenv_key = "OPENAI_API_KEY"\nwire_api = "responses"`, note: "Sessions are told apart by its own headers." },
    { name: "Gemini CLI", lines: `export GOOGLE_GEMINI_BASE_URL=${root}\ngemini`, note: "" },
    { name: "curl", lines: `curl ${root}/v1/chat/completions \\\n  -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \\\n  -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}'`, note: "" },
  ];
}
