#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/run.sh [--quick]: sets the machine up and passes the tests: g++, then the host suites once more
# under clang with ASan + UBSan, and those in which ranks talk with TSan; installs PyTorch (1.9 GB) into
# a virtual environment in ~/.cache/shardmesh, fetches the weights of a small model (84 MB) to there, and
# lets PyTorch read what was saved (--quick: g++ alone, without PyTorch). Prints a line for each build, and last `N passed, N failed`: test cases run
# in all builds together, where each script (format, compile-fail, install ...) is one case.
set -uo pipefail
cd "$(dirname "$0")/.."
quick=${1:-}
bash tests/setup.sh test || exit 1

status=0
logs=()

# build NAME SUITES SETUP-ARGS...: configures once, builds, tests.
build() {
  local name=$1 suites=$2
  shift 2
  local dir=build
  [[ $name == g++ ]] || dir=build-$name
  if [[ ! -f $dir/build.ninja ]] && ! meson setup "$dir" "$@" >"$dir.log" 2>&1; then
    cat "$dir.log"
    status=1
    return
  fi
  rm -f "$dir.log"
  local args=()
  for suite in $suites; do args+=(--suite "$suite"); done
  echo "== $name"
  local code=0
  meson test -C "$dir" --print-errorlogs "${args[@]}" >"$dir/test.log" 2>&1 || code=$?
  grep -vE '^(ninja: |\[[0-9]+/[0-9]+\]|Cleaning)' "$dir/test.log"
  ((code == 0)) || status=1
  logs+=("$name=$dir/meson-logs/testlog.json")
}

if [[ $quick != --quick && -z ${SHARDMESH_TORCH_PYTHON:-} ]]; then
  echo "== PyTorch for the suite interop"
  if SHARDMESH_TORCH_PYTHON=$(bash tests/interop/torch_env.sh); then
    export SHARDMESH_TORCH_PYTHON
    echo "$SHARDMESH_TORCH_PYTHON"
  fi
fi
# The least optimisation that the tests need and no debug information: half the time to compile.
build g++ "" -Doptimization=1 -Ddebug=false
if [[ $quick != --quick ]]; then
  # Where sanitizers watch, a large test takes 24 s to compile with clang -O0, 57 s with g++ -O0, 141 s
  # with g++ -O1.
  kind=clang sanitizing=(-Doptimization=0)
  if echo 'int main() {}' | clang++-19 -fsanitize=address,undefined -x c++ - -o /dev/null 2>/dev/null; then
    export CXX=clang++-19
  else
    echo "== clang: skipped, no clang++-19 with sanitizers here; g++ stands in"
    kind=g++ sanitizing=(-Doptimization=1)
  fi
  sanitizing+=(-Ddebug=false -Db_lundef=false -Dcuda=disabled -Dexamples=disabled -Dbench=disabled)
  build $kind-asan "host" -Db_sanitize=address,undefined "${sanitizing[@]}"
  build $kind-tsan "ranks" -Db_sanitize=thread "${sanitizing[@]}"
fi
python3 tests/support/count.py "${logs[@]}" || status=1
exit $status
