#!/usr/bin/env bash
# The core tests and the demo on Docker engines that this machine does not have installed. Each must start and pass;
# none is skipped. Prints a table of what ran. Arguments go to pytest. ENGINES="NAME..." runs only those.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --inside ]; then # with one of these engines as DOCKER_HOST
  label=$2 row=$3 result=passed tests=()
  shift 3
  pytest() { # pytest FOLDER NAME...
    local folder=$1; shift
    local paths=("${@/%/.py}")
    # A directory of their own: one of other tests may hold a mount that only this namespace still has. A short one, for
    # the path of a socket in it has at most 107 bytes.
    .venv/bin/pytest -q -m "not long" --basetemp "$BOILERHOUSE_ENGINE_DIR/$folder" "${arguments[@]}" \
      "${paths[@]/#/tests/$folder/test_}" 2>&1 | tee "$row.log" || result=FAILED
    tests+=("$(tail -1 "$row.log" | sed 's/ in .*//')")
  }
  arguments=("$@")
  versions=$(docker version --format '{{.Server.Version}} | {{.Server.MinAPIVersion}} to {{.Server.APIVersion}}')
  pytest pools engine_comparison docker_proxy engine_fields refused_engines image_pulls pull_runs seccomp tags registry_logins runtime_contract firewall ipv6
  pytest stack claim_and_release saving lifecycle exec_and_logs isolation image_volumes live_saves processes users registries
  demo=passed
  .venv/bin/python manage.py demo --once --output json >/dev/null || { demo=FAILED; result=FAILED; }
  echo "| $label | $versions | ${tests[0]}; ${tests[1]} | $demo | $SECONDS s |" >"$row"
  [ "$result" = passed ]
  exit
fi
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
arguments=("$@") code=0
run() { # run NAME SUITE CONFIG ENVIRONMENT
  case " ${ENGINES:-$1} " in *" $1 "*) ;; *) return 0 ;; esac
  echo "== test-engines: $1" >&2
  local row=$rows/$1
  ENGINE_CONFIG=$3 ENGINE_ENV=$4 scripts/on-engine.sh "$2" scripts/test-engines.sh --inside "$1" "$row" "${arguments[@]}" || code=1
  [ -f "$row" ] || echo "| $1 | | did not run | | |" >"$row"
}
run trixie trixie '{}' ''
run sid sid '{}' ''
# As Docker 29 is by default: nothing below API 1.44, and images in containerd.
run sid-as-29 sid '{"features": {"containerd-snapshotter": true}}' DOCKER_MIN_API_VERSION=1.44
printf '| engine | version | API | tests | demo | time |\n| --- | --- | --- | --- | --- | --- |\n'
for one in trixie sid sid-as-29; do [ ! -f "$rows/$one" ] || cat "$rows/$one"; done
[ "$code" = 0 ] || echo "test-engines: FAILED" >&2
exit "$code"
