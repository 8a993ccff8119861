#!/usr/bin/env bash
# Run a command in a network namespace of its own, where it may start, kill and restart a Docker engine of its own:
# sets DOCKER_HOST and BOILERHOUSE_ENGINE_DIR for it. The engine of this host is not touched.
# usage: scripts/engine.sh COMMAND [ARGUMENT...]
set -euo pipefail
name=bh-engine-$$
dir=$(mktemp -d /tmp/bh-engine-XXXXXX)
ip netns add "$name"
stop() {
  for pidfile in "$dir/docker.pid" "$dir/exec/containerd/containerd.pid"; do
    [ -f "$pidfile" ] && kill -CONT "$(cat "$pidfile")" 2>/dev/null && kill -TERM "$(cat "$pidfile")" 2>/dev/null
  done
  sleep 2
  pkill -KILL -f -- "$dir/" 2>/dev/null
  sleep 0.5
  grep -o " $dir/[^ ]*" /proc/mounts | sort -r | xargs -r umount -l 2>/dev/null
  ip netns delete "$name" 2>/dev/null
  [ -z "${KEEP:-}" ] && rm -rf "$dir"
  return 0
}
trap 'stop || true' EXIT
nsenter --net="/var/run/netns/$name" ip link set lo up
DOCKER_HOST="unix://$dir/docker.sock" BOILERHOUSE_ENGINE_DIR="$dir" nsenter --net="/var/run/netns/$name" "$@"
