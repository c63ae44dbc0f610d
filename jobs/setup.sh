#!/usr/bin/env bash
# Installs the packages of packages.txt that this machine lacks. Does nothing when all are there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
  echo "setup: $*" >&2
  exit 1
}

missing_packages() {
  local package
  while read -r package; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      echo "$package"
    fi
  done < <(sed 's/#.*//' "$here/packages.txt" | tr -s ' \t' '\n' | sed '/^$/d')
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  fail "this machine has no apt; install what jobs/packages.txt names (or use spack.yaml), then run" \
    "'cmake --preset dev && cmake --build --preset dev'"
fi

mapfile -t missing < <(missing_packages)
[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
    fail "these packages are missing, and installing them needs root or a sudo without password:" \
      "${missing[*]}"
  fi
  as_root=(sudo -n)
fi

echo "setup: installing ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
"${apt[@]}" update </dev/null
"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null

mapfile -t missing < <(missing_packages)
[ "${#missing[@]}" -eq 0 ] || fail "still not installed: ${missing[*]}"
