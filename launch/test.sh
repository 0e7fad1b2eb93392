#!/usr/bin/env bash
# Runs every check: format, lint, types, import floors and all tests. Arguments go to pytest:
#   bash launch/test.sh                    all of it
#   bash launch/test.sh tests/tiling -x    the checks, and these tests
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$root"

timings=""
failures=""

# stage NAME COMMAND...: runs on after a failure, so that one run tells all that is wrong.
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
  local status=0
  "$venv/bin/python" -m pytest -rs "$@" || status=$?
  [ "$status" -ne 5 ] || echo "No test was run: the arguments chose none." >&2
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
