#!/usr/bin/env bash
# Build the images of the examples named (all of them without a name) as boilerhouse-examples/NAME:1.
# usage: examples/build.sh [NAME...]
#
# BASE names the image they start from. Without it that is a Debian 12 made here by debootstrap from the mirrors of this
# machine's apt, so no image registry is needed: Debian's packages, PyPI and npm are. The base trusts the certificate
# authorities that this machine trusts. It is kept in EXAMPLES_CACHE for the next time.
set -euo pipefail
umask 022
cd "$(dirname "$0")"
export PATH="$PATH:/usr/sbin:/sbin"
release=bookworm
cache=${EXAMPLES_CACHE:-/var/cache/boilerhouse-examples}
made=boilerhouse-examples/debian:12
bundle=/etc/ssl/certs/ca-certificates.crt
say() { printf 'examples: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

sources() { # the lines of a sources.list for what this machine's apt uses of the release
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
    awk -v release="$release" '($3 == release || index($3, release "-") == 1) && $4 == "main"'
}

make_root() { # make_root DIRECTORY: a small Debian
  local root=$1 mirror
  mirror=$(sources | awk -v release="$release" '$3 == release { print $2; exit }')
  [ -n "$mirror" ] || fail "this machine's apt has no $release; run apt-get update, or set BASE to an image that is here."
  say "making a Debian root file system (log: $cache/debootstrap.log)"
  debootstrap --variant=minbase --include=ca-certificates "$release" "$root" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: $(tail -3 "$cache/debootstrap.log")"
  sources >"$root/etc/apt/sources.list"
  cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true # most machines have none
  chroot "$root" update-ca-certificates >/dev/null 2>&1
  printf 'path-exclude=/usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/small"
  printf '%s\n' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };' >"$root/etc/apt/apt.conf.d/small"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod 755 "$root/usr/sbin/policy-rc.d"
  rm -rf "$root"/usr/share/{doc,man,info,locale}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
    "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log
  chmod 1777 "$root/tmp"
}

make_base() {
  local archive=$cache/debian-$release.tar root
  mkdir -p -m 0700 "$cache"
  exec 8>"$cache/lock" && flock 8
  docker image inspect "$made" >/dev/null 2>&1 && return
  if [ ! -f "$archive" ]; then
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root; or set BASE to an image that is here, such as debian:12-slim."
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap."
    root=$(mktemp -d "$cache/root-XXXXXX")
    make_root "$root"
    tar -C "$root" --numeric-owner -cf "$archive.part" . && mv "$archive.part" "$archive"
    rm -rf "$root"
  fi
  docker import --change "ENV PIP_CERT=$bundle NODE_EXTRA_CA_CERTS=$bundle" --change 'CMD ["/bin/sh"]' "$archive" "$made" >/dev/null
  say "made $made"
}

if [ $# = 0 ]; then set -- */Dockerfile; set -- "${@%/Dockerfile}"; fi
for name in "$@"; do [ -f "$name/Dockerfile" ] || fail "no example is called $name."; done
if [ -z "${BASE:-}" ]; then make_base; BASE=$made; fi
for name in "$@"; do
  say "building boilerhouse-examples/$name:1"
  # Containers run under a uid of their own: what an umask of 077 kept from others in the checkout is readable in the image.
  tar -C "$name" --mode='go-w,a+rX' -c . |
    docker build -q --network host --build-arg BASE="$BASE" -t "boilerhouse-examples/$name:1" - >/dev/null
done
