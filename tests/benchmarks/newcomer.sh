#!/bin/sh
# A newcomer's first minutes, timed: from `git clone` to a blocked loop on the dashboard.
# Usage: sh tests/benchmarks/newcomer.sh [REPOSITORY]
#
# What is typed is what the tutorial shows, in an empty directory with an empty home; the packages
# come from wherever pip is set up to find them. Prints the seconds and the commands after each step.
set -eu
repository=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d)
export HOME="$work/home" PYTHONDONTWRITEBYTECODE=1
unset TOKENWEIR_ADMIN_TOKEN
mkdir "$HOME"
servers=""
finish() {
  for process in $servers; do kill "$process" 2>/dev/null || true; done
  for process in $servers; do wait "$process" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free) admin=$(free) provider=$(free)
started=$(date +%s)
commands=0
# step NAME COMMANDS: what has been done by now
step() { commands=$((commands + $2)); printf '%4d s  %2d commands  %s\n' "$(($(date +%s) - started))" "$commands" "$1"; }
until_there() { # until_there SECONDS COMMAND...: poll until it succeeds
  left=$1; shift
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1)); [ "$left" -gt 0 ] || { echo "did not happen: $*" >&2; cat "$work"/*.log >&2; exit 1; }
    sleep 1
  done
}

cd "$work"
git clone --quiet "$repository" tokenweir
cd tokenweir
step "cloned" 2
printf 'upstreams:\n  openai:\n    base_url: http://127.0.0.1:%s\n' "$provider" > tutorial.yaml
make run ARGS="--config tutorial.yaml --port $port --admin-port $admin" > "$work/run.log" 2>&1 &
servers="$!"
until_there 280 curl -sf "http://127.0.0.1:$admin/health/readiness"
link=$(grep -o "http://[^ ]*/signin?code=[^ ]*" "$work/run.log")
step "installed and running; a file of three lines written" 2
.venv/bin/tokenweir demo --provider-port "$provider" > "$work/provider.log" 2>&1 &
servers="$! $servers"
until_there 30 curl -s "http://127.0.0.1:$provider/"
curl -sf -c "$work/cookies" -o /dev/null "$link"
page() { curl -sf -b "$work/cookies" "http://127.0.0.1:$admin$1"; }
step "signed in to the dashboard" 2
say() { # say AGENT FILE: one call; prints its status
  curl -s -o "$work/answer.json" -w "%{http_code}\n" "http://127.0.0.1:$port/@$1/v1/chat/completions" \
    -H "Authorization: Bearer sk-newcomer" -H "Content-Type: application/json" -d "@$2"
}
echo '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}' > "$work/hello.json"
[ "$(say greeter "$work/hello.json")" = 200 ]
first() { page /api/v1/first-call | grep -q '"seen":true'; }
until_there 30 first
step "first call passed, and the panel is green" 1
sed -n '/^cat > stuck.json/,/^END$/p' docs/tutorial.md | sed '1d;$d' > stuck.json
passed=0
for call in $(seq 150); do
  [ "$(say refunds stuck.json)" = 200 ] && passed=$((passed + 1))
done
blocked() { page /api/v1/actions | grep -q '"kind":"block"'; }
until_there 30 blocked
step "a loop of 150 calls was stopped after $passed; its block is on the dashboard" 2
[ "$(say greeter "$work/hello.json")" = 200 ]
echo "the healthy agent is served all the while"
