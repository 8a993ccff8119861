#!/usr/bin/env bash
# Have Docker's compose plugin as a program, and print its path: this machine's, or that of a newer Debian, fetched once
# and kept outside the checkout (Debian 12 has only the compose of before, which cannot read compose.yaml).
# usage: scripts/compose-plugin.sh
set -euo pipefail
suite=trixie
cache=${BOILERHOUSE_COMPOSE:-/var/cache/boilerhouse-compose}
plugin=usr/libexec/docker/cli-plugins/docker-compose
for directory in "${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins" /usr/{local/,}lib{,exec}/docker/cli-plugins; do
  if [ -x "$directory/docker-compose" ]; then echo "$directory/docker-compose"; exit; fi
done
mkdir -p "$cache"
exec 9>"$cache/lock"; flock 9
if [ ! -x "$cache/$plugin" ]; then
  fail() { tail -5 "$cache/log" >&2; echo "compose-plugin: $1 failed; all of it: $cache/log" >&2; exit 1; }
  part=$(mktemp -d "$cache/part-XXXXXX")
  trap 'rm -rf "$part"' EXIT
  mkdir -p "$part"/{lists,archives}/partial
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main" >"$part/sources"
  options=(-o "Dir::Etc::SourceList=$part/sources" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$part/lists"
    -o "Dir::Cache=$part" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update >"$cache/log" 2>&1 || fail "apt-get update"
  (cd "$part" && apt-get "${options[@]}" download docker-compose >>"$cache/log" 2>&1 && dpkg-deb -x docker-compose_*.deb unpacked) || fail "apt-get download"
  cp -r "$part/unpacked/." "$cache"
fi
echo "$cache/$plugin"
