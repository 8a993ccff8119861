#!/usr/bin/env bash
# Have the userland of a Debian suite with its Docker engine, as a directory, and print its path. Built once, by
# debootstrap, outside the checkout; remove the directory to get what the suite carries by then.
# usage: scripts/engine-root.sh trixie|sid
set -euo pipefail
suite=$1
cache=${BOILERHOUSE_ENGINES:-/var/cache/boilerhouse-engines}
root=$cache/$suite
mkdir -p "$cache"
exec 9>"$cache/$suite.lock"; flock 9
packages="docker.io iproute2 iptables rootlesskit slirp4netns uidmap systemd-standalone-sysusers" # sysusers: else docker.io brings systemd
if [ "$(cat "$root/.complete" 2>/dev/null)" != "$packages" ]; then
  fail() { tail -20 "$cache/$suite.log" >&2; echo "engine-root: $1 failed; all of it: $cache/$suite.log" >&2; exit 1; }
  echo "engine-root: building $root (log: $cache/$suite.log)" >&2
  rm -rf --one-file-system "$root"
  debootstrap --variant=minbase "$suite" "$root" http://deb.debian.org/debian >"$cache/$suite.log" 2>&1 || fail debootstrap
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"; chmod +x "$root/usr/sbin/policy-rc.d" # starts no service
  # shellcheck disable=SC2086  packages are words
  DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -q --no-install-recommends $packages >>"$cache/$suite.log" 2>&1 9>&- || fail "apt-get install"
  chroot "$root" apt-get clean
  echo "$packages" >"$root/.complete"
fi
echo "$root"
