#!/usr/bin/env bash
# Runs the checks: format, lint, types, import floors and the tests, on up to four cores. Arguments go to pytest:
#   bash launch/test.sh                    the checks, and all tests but the slow proofs
#   bash launch/test.sh --slow             those too, as .ci/run does
#   bash launch/test.sh tests/tiling -x    the checks, and these tests
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

# Tests start hundreds of Python processes. Where modules stay uncompiled, each takes 5 s to import torch instead of 2.
unset PYTHONDONTWRITEBYTECODE

timings=""
failures=""

chosen=(-m "not slow")
if [ "${1:-}" = --slow ]; then
  chosen=()
  shift
fi

# stage NAME COMMAND...: continues after a failure, so that one run shows everything that is wrong.
stage() {
  local name=$1 start=$SECONDS status=0
  shift
  say "$name: ${*/#"$venv/bin/"/}"
  "$@" || status=$?
  [ "$status" -eq 0 ] || failures+=" $name"
  timings+=$(printf '  %-12s %4d s  %s' "$name" $((SECONDS - start)) "$([ "$status" -eq 0 ] && echo ok || echo FAILED)")$'\n'
  return 0
}

run_tests() {
  local status=0 cores
  cores=$(nproc)
  # A file's tests share what they train, so a file stays in one process.
  "$venv/bin/python" -m pytest -rs --durations=25 -n "$((cores < 4 ? cores : 4))" --dist loadfile ${chosen[@]+"${chosen[@]}"} "$@" || status=$?
  [ "$status" -ne 5 ] || echo "No test ran: the arguments chose none, or slow ones only (--slow)." >&2
  return "$status"
}

say "environment"
started=$SECONDS
prepare_environment test
timings=$(printf '  %-12s %4d s  ok' environment $((SECONDS - started)))$'\n'
if [ -n "${UNET_DIST_NULLGPU:-}" ]; then stage "null GPU" bash tests/nullgpu/make_environment.sh; fi

stage format "$venv/bin/ruff" format --check .
stage lint "$venv/bin/ruff" check .
stage types "$venv/bin/mypy"
stage tests run_tests "$@"

say "$((SECONDS)) s in all"
printf '%s' "$timings"
[ -z "$failures" ] || fail "failed:$failures. Each says why under its heading above; \"$venv/bin/ruff format .\" mends the format."
echo "All checks passed."
