#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/run.sh [--quick]: sets the machine up and passes the tests: g++, then the host suites once more
# under clang with ASan + UBSan, and those in which ranks talk with TSan; what a release build may not warn of.
# Installs PyTorch into a virtual environment in ~/.cache/shardmesh (2 GB; 5 GB without CUDA), fetches the weights of
# a small model (84 MB) to there, and lets PyTorch read what was saved; runs the README's first command on a bare
# Debian, where root may make one. (--quick: g++ alone, without PyTorch and the bare machine.)
#
# While tests run, which wait more than they work, the next build compiles. Prints a line for each build, then what
# was skipped and why, and last `N passed, N failed`: test cases run in all builds together, where each script
# (format, compile-fail, install ...) is one case.
set -uo pipefail
cd "$(dirname "$0")/.."
quick=${1:-}
if [[ -n $quick && $quick != --quick ]]; then
  echo "usage: bash tests/run.sh [--quick]" >&2
  exit 2
fi
bash tests/setup.sh test || exit 1

status=0
logs=()
notes=()
beside=() # processes at work beside this one
work=$(mktemp -d)
trap '((${#beside[@]} == 0)) || kill "${beside[@]}" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

dir_of() { [[ $1 == g++ ]] && echo build || echo "build-$1"; }

# compile NAME SETUP-ARGS...: configures the build and compiles what its suites need; says why it cannot.
compile() {
  local name=$1 dir
  dir=$(dir_of "$1")
  shift
  rm -f "$dir/meson-logs/testlog.json" # or a build that fails would count as the last one that did not
  python3 tests/support/configure.py "$dir" "$@" || return
  read -ra targets <<<"${needed[$name]}"
  ninja -C "$dir" "${targets[@]}" >"$work/$name.ninja" 2>&1 || { tail -80 "$work/$name.ninja" && return 1; }
}

# compile_beside NAME SETUP-ARGS...: the same beside what comes next, which goes first.
compile_beside() {
  nice -n 15 bash -c 'true' 2>/dev/null
  (renice -n 15 $BASHPID >/dev/null 2>&1; compile "$@") >"$work/$1.said" 2>&1 &
  beside+=($!)
  pid[$1]=$!
}

# passes NAME SUITE...: waits for the build, and runs its suites (none named: all).
passes() {
  local name=$1 dir args=() code=0
  dir=$(dir_of "$1")
  shift
  for suite in "$@"; do args+=(--suite "$suite"); done
  echo "== $name"
  logs+=("$name=$dir/meson-logs/testlog.json")
  if ! wait "${pid[$name]}"; then
    cat "$work/$name.said"
    status=1
    return
  fi
}
