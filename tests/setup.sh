#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/setup.sh run|test: installs what is missing on Debian 12 or Ubuntu 24.04 to build and run the
# examples, or all tests as well. Says what it does; does nothing where all is there. Packages named in
# SHARDMESH_EXTRA_PACKAGES come along if they are to be had.
set -euo pipefail

mode=${1:-run}
packages=(g++ ninja-build meson pkg-config python3 zlib1g-dev nlohmann-json3-dev libcli11-dev)
optional=()
if [[ $mode == test ]]; then
  packages+=(doctest-dev cmake git python3-venv openmpi-bin libopenmpi-dev)
  optional+=(libisal-dev clang-19 libclang-rt-19-dev clang-format-19 clang-tidy-19 mpich libmpich-dev doxygen)
fi
read -ra extra <<<"${SHARDMESH_EXTRA_PACKAGES:-}"
optional+=("${extra[@]}")

missing_of() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

if ! command -v apt-get >/dev/null; then
  echo "setup: no apt-get here; install by hand: ${packages[*]}"
  exit 0
fi
mapfile -t missing < <(missing_of "${packages[@]}")
mapfile -t wanted < <(missing_of "${optional[@]}")
if ((${#missing[@]} + ${#wanted[@]} == 0)); then
  echo "setup: everything is there"
  exit 0
fi

# sudo keeps little of the environment: what apt-get needs is named. Another apt-get may be at work.
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup: needs ${missing[*]} ${wanted[*]}; ask root to run: apt-get install ${missing[*]} ${wanted[*]}" >&2
    ((${#missing[@]} == 0)) && exit 0
    exit 1
  fi
  apt=(sudo "${apt[@]}")
fi
echo "setup: apt-get update"
"${apt[@]}" update || echo "setup: apt-get update failed; what follows uses the lists of packages that are here"
if ((${#missing[@]} > 0)); then
  echo "setup: installing ${missing[*]}"
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
fi
if ((${#wanted[@]} > 0)); then
  echo "setup: installing ${wanted[*]} (optional)"
  # All at once is quicker; one by one where one of them is not to be had.
  "${apt[@]}" install -y --no-install-recommends "${wanted[@]}" >/dev/null 2>&1 ||
    for package in "${wanted[@]}"; do
      "${apt[@]}" install -y --no-install-recommends "$package" >/dev/null 2>&1 ||
        echo "setup: $package is not to be had here; the checks that use it will be skipped"
    done
fi
