#!/bin/sh
# Every benchmark, one after another. `--quick`: the short ones, in about a minute.
# Their full output goes to build/benchmarks/, a figure file beside each where it has one.
cd "$(dirname "$0")/../.." || exit 1
out=build/benchmarks
mkdir -p "$out"
shared="${TOKENWEIR_SHARED:-../shared}"
bad=0
run() {
  name=$1; shift
  echo "== $name"
  if .venv/bin/python -m "tests.benchmarks.$name" "$@" > "$out/$name.txt" 2>&1; then
    tail -n "${lines:-12}" "$out/$name.txt"
  else
    tail -n 12 "$out/$name.txt"; echo "$name FAILED"; bad=1
  fi
}
if [ "${1:-}" = "--quick" ]; then
  run stages --calls 6400
  run wire_cost
  exit $bad
fi
lines=30 run throughput --json "$out/throughput.json" --chart docs/images/throughput.svg
run stages
run streams
run wire_cost
run gate --json "$out/gate.json"
run budget --json "$out/budget.json"
run ledger
run store_scale
run alerts
run importing
run dashboard
if [ -d "$shared/traces" ]; then
  run detection --traces "$shared/traces" --seeds 1,2,3,4,5 --json "$out/detection.json"
  run rootcause --json "$out/rootcause.json"
else
  echo "no traces at $shared/traces: detection and rootcause are left out"
fi
if [ -f "$shared/wire/recorded.jsonl.gz" ]; then
  run wire "$shared/wire/recorded.jsonl.gz"
else
  echo "no recordings at $shared/wire: wire is left out"
fi
exit $bad
