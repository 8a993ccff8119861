#!/usr/bin/env bash
# The core tests and the demo on Docker engines that this machine does not have installed. Each must start and pass;
# none is skipped. Prints a table of what ran. Arguments go to pytest. ENGINES="NAME..." runs only those.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
unset DATABASE_URL BOILERHOUSE_DATA_DIR
core=(claim_and_release saving lifecycle exec_and_logs isolation image_volumes live_saves)
tests=(); for one in "${core[@]}"; do tests+=("tests/stack/test_$one.py"); done
rows=$(mktemp); export rows
trap 'rm -f "$rows"' EXIT
cat_all='.venv/bin/pytest -q -m "not long" "$@" && .venv/bin/python manage.py demo --once --output json >/dev/null &&
  docker version --format "| $label | {{.Server.Version}} | {{.Server.MinAPIVersion}}–{{.Server.APIVersion}} | passed |" >>"$rows"'
run() { # run NAME SUITE CONFIG ENVIRONMENT
  label=$1; export label
  case " ${ENGINES:-$label} " in *" $label "*) ;; *) return 0 ;; esac
  echo "test-engines: $label" >&2
  ENGINE_CONFIG=$3 ENGINE_ENV=$4 scripts/on-engine.sh "$2" bash -c "$cat_all" core "${tests[@]}" "${arguments[@]}"
}
arguments=("$@")
run trixie trixie '{}' ''
run sid sid '{}' ''
# As Docker 29 is by default: nothing below API 1.44, and images in containerd.
run sid-as-29 sid '{"features": {"containerd-snapshotter": true}}' DOCKER_MIN_API_VERSION=1.44
printf '| engine | version | API | core tests and demo |\n| --- | --- | --- | --- |\n'
cat "$rows"
