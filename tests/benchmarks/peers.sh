#!/bin/sh
# Installs the gateways that the throughput benchmark compares, outside the project.
# Big and slow: only by hand. What fails to install is left out of the comparison.
set -u
home="${TOKENWEIR_BENCH_PEERS:-$HOME/.cache/tokenweir-bench}"
mkdir -p "$home" && cd "$home" || exit 1
if [ ! -x litellm/bin/litellm ]; then
  python3 -m venv litellm && litellm/bin/pip --disable-pip-version-check -q install 'litellm[proxy]'
fi
if [ ! -d portkey/node_modules ] && command -v npm >/dev/null 2>&1; then
  mkdir -p portkey && cd portkey || exit 1
  # These two pins keep its streams from failing on a fresh install.
  printf '{"private": true, "overrides": {"@hono/node-server": "1.13.0", "hono": "4.9.7"}}\n' > package.json
  npm install --silent --no-audit --no-fund @portkey-ai/gateway@1.15.2
fi
