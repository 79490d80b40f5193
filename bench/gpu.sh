#!/bin/bash
# Builds perfkit offline on a machine with a GPU, runs tests/gpu and every GPU bench, and writes
# bench/results/<gpu>.json: inside nine minutes. A step that fails is printed, the rest goes on.
# bench/gpu/README.md says what the machine must have and how to carry what it has not.
#
#   bench/gpu.sh [FOLDER]      logs and results also go to FOLDER (default: bench/out/gpu)
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-.whl}
OUT=$(mkdir -p "${1:-bench/out/gpu}" && cd "${1:-bench/out/gpu}" && pwd)
COMMIT=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
SITE=$(mktemp -d)
LIMIT=${LIMIT:-530} # seconds in all
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"
: >"$OUT/steps.tsv"
trap 'rm -rf "$SITE"' EXIT

# step NAME SECONDS COMMAND...: at most so long, and never beyond LIMIT.
step() {
  local name=$1 most=$2 begin=$SECONDS status left=$((LIMIT - SECONDS))
  shift 2
  if [ "$left" -le 5 ]; then
    echo "== $name: left out, no time"
    printf '%s\t124\t0\n' "$name" >>"$OUT/steps.tsv"
    return 1
  fi
  timeout -k 5 $((most < left ? most : left)) "$@" >"$OUT/$name.log" 2>&1
  status=$?
  printf '%s\t%d\t%d\n' "$name" "$status" $((SECONDS - begin)) >>"$OUT/steps.tsv"
  echo "== $name: status $status, $((SECONDS - begin)) s"
  [ "$status" -eq 0 ] || tail -n 25 "$OUT/$name.log"
  return "$status"
}
has() { "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; }

if compgen -G "$WHEELS/*.whl" >/dev/null; then
  step wheels 60 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
    --upgrade --target "$SITE" "$WHEELS"/*.whl
fi
# In place: the extensions land beside the sources. 16 files compile at a time on 16 cores.
step build 240 env PERFKIT_CUDA=on "$PYTHON" setup.py build_ext --inplace --force

step attention-tests 150 "$PYTHON" -m pytest -q -x tests/gpu/test_attention.py
step other-tests 100 "$PYTHON" -m pytest -q tests/gpu --ignore tests/gpu/test_attention.py
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    step "$tool" 45 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      "$PYTHON" -m bench.gpu.once
  done
fi
if command -v compute-sanitizer >/dev/null; then
  step switch-memcheck 60 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "$PYTHON" -m pytest -q tests/gpu/test_switch.py -k "push or pull"
fi
step attention 180 "$PYTHON" -m bench.gpu.attention --seconds 110 --json "$OUT/attention.json" &&
  cat "$OUT/attention.log"
step rows 110 "$PYTHON" -m perfkit.cli dataset build --target triton --hours 0.025 \
  --out "$OUT/triton-rows" && cat "$OUT/rows.log"
if has bench.gpu.triton; then
  step triton 90 "$PYTHON" -m bench.gpu.triton --json "$OUT/triton.json" && cat "$OUT/triton.log"
fi
"$PYTHON" -m bench.gpu.report "$OUT" "$COMMIT" && cp bench/results/*.json "$OUT/" 2>/dev/null
echo "== $SECONDS s in all"
# The status says whether the tests passed; a bench that failed is in the report.
! awk -F'\t' '$1 ~ /tests$|build|check$/ && $2 != 0 {bad = 1} END {exit !bad}' "$OUT/steps.tsv"
