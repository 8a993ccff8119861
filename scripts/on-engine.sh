#!/usr/bin/env bash
# Run a command against the Docker engine that a Debian suite carries, in namespaces of its own (scripts/engine.sh).
# Its dockerd sees that suite's /usr and /etc, and all other files of this machine under the same paths.
# usage: scripts/on-engine.sh SUITE COMMAND [ARGUMENT...]     ENGINE_CONFIG: what daemon.json says; ENGINE_ENV: A=1 B=2
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
if [ "$1" != --inside ]; then
  root=$("$scripts/engine-root.sh" "$1"); shift
  # Shared, so that dockerd sees what is mounted later: RAM file systems, disks with a limit.
  "$scripts/engine.sh" unshare --mount --propagation shared "$scripts/on-engine.sh" --inside "$root" "$@"
  exit
fi
root=$2; shift 2
dir=$BOILERHOUSE_ENGINE_DIR
export BOILERHOUSE_ENGINE_ROOT=$root # for tests that start another of its engines
echo "${ENGINE_CONFIG:-{\}}" >"$dir/daemon.json"
# shellcheck disable=SC2086  ENGINE_ENV is words
unshare --mount --propagation slave env ${ENGINE_ENV:-} sh -c \
  'mount --bind "$0/etc" /etc && mount --bind "$0/usr" /usr && exec dockerd "$@"' "$root" \
  --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
  -H "$DOCKER_HOST" --live-restore >"$dir/dockerd.log" 2>&1 </dev/null & engine=$!
for _ in $(seq 300); do
  docker version >/dev/null 2>&1 && break
  kill -0 $engine 2>/dev/null || break
  sleep 0.2
done
docker version >/dev/null 2>&1 || { tail -20 "$dir/dockerd.log" >&2; echo "on-engine: dockerd of $root did not start" >&2; exit 1; }
rc=0; "$@" || rc=$?
docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
kill -TERM $engine; wait $engine || true
exit $rc
