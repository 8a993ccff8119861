#!/usr/bin/env bash
# Have everything that `make demo` (or, with "test", `make test`) needs on this machine. Says each step, does nothing
# twice. As root on Debian 12, Debian 13 or Ubuntu 24.04 it installs what is missing; elsewhere it names it, prints the
# command, and stops.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-demo}
say() { printf 'bootstrap: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Operating system packages -------------------------------------------------------------------------
missing=()
need() { # need PACKAGE COMMAND...: note the package if none of the commands is there
  local package=$1; shift
  local candidate
  for candidate in "$@"; do
    if command -v "$candidate" >/dev/null 2>&1 || [ -x "/usr/sbin/$candidate" ] || compgen -G "$candidate" >/dev/null; then return 0; fi
  done
  missing+=("$package")
}
system=$(. /etc/os-release 2>/dev/null && echo "${ID:-}:${VERSION_ID:-}" || true)
need python3 python3
if command -v python3 >/dev/null; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed as python3 (found: $(python3 --version 2>&1))."
fi
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
need docker.io dockerd
need iptables iptables
need nftables nft
need iproute2 ip
need bubblewrap bwrap
need util-linux setpriv
need nginx-light nginx
need gcc cc
need musl-tools musl-gcc
need make make
need ca-certificates /etc/ssl/certs/ca-certificates.crt
if ! { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }; then missing+=(busybox-static); fi
if [ "$purpose" = test ]; then
  case $system in # newer ones have the command in a package of its own
    debian:12 | ubuntu:24.04) need docker.io docker ;;
    *) need docker-cli docker ;;
  esac
  case $system in # which has it as a snap only
    ubuntu:*) command -v chromium >/dev/null || fail "Ubuntu has no package of Chromium: install it as /usr/bin/chromium." ;;
    *) need chromium chromium ;;
  esac
  need docker-registry docker-registry
  need xfsprogs mkfs.xfs
  need file file
  need debootstrap debootstrap
  need sqlite3 sqlite3
  need openssh-server sshd
  need openssh-client ssh-keygen
  need postgresql '/usr/lib/postgresql/*/bin/postgres' /usr/local/bin/postgres
fi
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    $install -qq >/tmp/boilerhouse-apt.log 2>&1 || { tail -20 /tmp/boilerhouse-apt.log >&2; fail "apt-get failed."; }
    # `up` starts the program itself. The service would be a second server, on port 80 for everybody.
    case " ${missing[*]} " in *" nginx-light "*) [ ! -d /run/systemd/system ] || systemctl disable -q --now nginx ;; esac
  else
    say "missing: ${missing[*]}"
    fail "on Debian or Ubuntu run: sudo $install"
  fi
fi

# Python environment --------------------------------------------------------------------------------
uv=$(command -v uv || true)
if [ -z "$uv" ]; then
  if [ ! -x .uv/bin/uv ]; then
    say "installing uv into .uv"
    python3 -m venv .uv
    .uv/bin/pip install -q --disable-pip-version-check 'uv>=0.9,<1' >&2
  fi
  uv=.uv/bin/uv
fi
stamp=.venv/.boilerhouse-$purpose
if [ ! -f "$stamp" ] || [ uv.lock -nt "$stamp" ]; then
  say "installing the locked environment into .venv"
  # The interpreter itself, not a shim: uv would take another path for another Python and start anew.
  interpreter=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
  if [ "$purpose" = test ]; then groups=(--all-extras); else groups=(--no-dev --inexact); fi
  UV_PROJECT_ENVIRONMENT=.venv "$uv" sync --frozen -q --python "$interpreter" "${groups[@]}" >&2
  touch "$stamp"
fi

# promtool alone: Debian's package would also start a server where there is an init.
if [ "$purpose" = test ] && [ ! -x .venv/bin/promtool ] && ! command -v promtool >/dev/null; then
  say "fetching promtool into .venv/bin"
  command -v apt-get >/dev/null || fail "promtool is missing; install Prometheus' tools."
  unpacked=$(mktemp -d)
  (cd "$unpacked" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) || fail "promtool could not be fetched (apt-get download prometheus)."
  cp "$unpacked/usr/bin/promtool" .venv/bin/promtool; rm -rf "$unpacked"
fi

# Azurite, the emulator of Azure's storage, in the versions of its lock file and with the environment's own Node.js.
if [ "$purpose" = test ] && ! cmp -s tests/azurite/package-lock.json .venv/azurite/installed.json; then
  say "installing azurite into .venv/azurite"
  mkdir -p .venv/azurite
  cp tests/azurite/package.json tests/azurite/package-lock.json .venv/azurite/
  npm=$PWD/.venv/bin/npm
  (cd .venv/azurite && PATH="${npm%/*}:$PATH" "$npm" ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || fail "npm ci failed."
  cp tests/azurite/package-lock.json .venv/azurite/installed.json
fi

# What builds and tests the TypeScript client, in the same way.
if [ "$purpose" = test ] && ! cmp -s clients/typescript/package-lock.json .venv/typescript/installed.json; then
  say "installing the tools of the TypeScript client into .venv/typescript"
  mkdir -p .venv/typescript
  cp clients/typescript/package.json clients/typescript/package-lock.json .venv/typescript/
  npm=$PWD/.venv/bin/npm
  (cd .venv/typescript && PATH="${npm%/*}:$PATH" "$npm" ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || fail "npm ci failed."
  cp clients/typescript/package-lock.json .venv/typescript/installed.json
fi

# The guest agent: process 1 of containers, one static program ----------------------------------------
make -s -C guest >&2 || fail "the guest agent could not be built (make -C guest)."

# Docker engine -------------------------------------------------------------------------------------
export PATH="$PATH:/usr/sbin:/sbin"
answers() {
  .venv/bin/python - <<'PY' 2>/dev/null
import docker, os
docker.APIClient(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), version="auto", timeout=5)
PY
}
if ! answers; then
  [ -z "${DOCKER_HOST:-}" ] || fail "the Docker engine at $DOCKER_HOST does not answer."
  [ "$(id -u)" = 0 ] || fail "no Docker engine answers; start one (sudo systemctl start docker) and be allowed to use it."
  for pidfile in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [ -f "$pidfile" ] || continue
    pid=$(cat "$pidfile"); state=$(awk '{print $3}' "/proc/$pid/stat" 2>/dev/null || echo gone)
    name=$(cat "/proc/$pid/comm" 2>/dev/null || echo none)
    case "$state:$name" in
      gone:*|Z:*) say "removing stale $pidfile"; rm -f "$pidfile" ;;
      *:dockerd|*:containerd) ;;
      *) say "removing stale $pidfile (pid $pid is $name)"; rm -f "$pidfile" ;;
    esac
  done
  for _ in $(seq 20); do answers && break; pgrep -x dockerd >/dev/null || break; sleep 0.5; done
  if ! answers; then
    modprobe br_netfilter 2>/dev/null || true
    say "starting dockerd (log: /var/log/boilerhouse-dockerd.log)"
    setsid dockerd --live-restore >>/var/log/boilerhouse-dockerd.log 2>&1 </dev/null &
    for _ in $(seq 120); do answers && break; sleep 0.5; done
    answers || { tail -5 /var/log/boilerhouse-dockerd.log >&2; fail "dockerd did not come up."; }
  fi
fi
