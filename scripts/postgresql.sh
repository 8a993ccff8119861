#!/usr/bin/env bash
# Run a command with a PostgreSQL of its own: sets DATABASE_URL for it, removes the server afterwards.
# usage: scripts/postgresql.sh COMMAND [ARGUMENT...]
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true)
[ -n "$bin" ] || bin=$(dirname "$(command -v postgres)")
dir=$(mktemp -d /tmp/bh-pg-XXXXXX)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as=(); if [ "$(id -u)" = 0 ]; then id postgres >/dev/null 2>&1 || useradd --system postgres; chown postgres "$dir"; as=(runuser -u postgres --); fi
stop() { "${as[@]}" "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap stop EXIT
cd "$dir"
"${as[@]}" "$bin/initdb" -D "$dir/data" -U boilerhouse --auth=trust -E UTF8 --locale=C >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-k $dir -p $port -c listen_addresses=127.0.0.1 -c max_connections=200" start >/dev/null \
  || { cat "$dir/log" >&2; exit 1; }
"${as[@]}" "$bin/createdb" -h 127.0.0.1 -p "$port" -U boilerhouse boilerhouse
cd - >/dev/null
printf '#!/bin/sh\ncd %s && exec %s %s/pg_ctl -D %s/data -m immediate -w -l %s/log restart\n' "$dir" "${as[*]}" "$bin" "$dir" "$dir" >"$dir/restart"
chmod 755 "$dir/restart"
export BOILERHOUSE_TEST_RESTART_DATABASE="$dir/restart"
DATABASE_URL="postgres://boilerhouse@127.0.0.1:$port/boilerhouse" "$@"
