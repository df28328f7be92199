#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/run.sh [--quick|--full]: sets the machine up and passes the tests, as many as there is time for:
#
#   (nothing)  less than half an hour on two cores: all that is built with g++ but what --full names; installs PyTorch into a virtual
#              environment in ~/.cache/shardmesh (2 GB; 5 GB without CUDA), fetches the weights of a small model (84 MB) to
#              there, and lets PyTorch read what was saved
#   --quick    10 minutes: the rooms but `checkpoint`, with g++; what must not compile; formats, includes and scripts
#   --full     an hour, what CI runs: also the suites `slow`, `release` and `fuzz`; the host suites once more under clang with
#              ASan + UBSan, and those in which ranks talk with TSan; the README's first command on a bare Debian, where
#              root may make one, and what a stranger would try next, as far as it comes in 60 s
#
# Tests wait more than they work: while they run, the next build compiles. Prints a line for each test, then what was
# skipped or left out and why, and last `N passed, N failed`: test cases run in all builds together, where each script
# (format, compile-fail, install ...) is one case.
set -uo pipefail
cd "$(dirname "$0")/.."
form=${1:-}
if [[ ! $form =~ ^(--quick|--full)?$ || $# -gt 1 ]]; then
  echo "usage: bash tests/run.sh [--quick|--full]" >&2
  exit 2
fi
bash tests/setup.sh test || exit 1

# What takes more time than it has in the other forms.
only_full="the host suites under clang with ASan + UBSan and with TSan, the build for release, the fuzz targets, the bare "
only_full+="machine, and of the slow suites checkpoint-costs, mpi-with-mpich, interop-libtorch, install-separate, guide and tidy"
status=0
logs=()
notes=()
work=$(mktemp -d)
declare -A built=()
declare -A beside=() # what runs beside this script: a process group each
trap 'for pid in "${beside[@]}"; do kill -- "-$pid" 2>/dev/null; done; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# say TEXT: a heading, with the time since the start.
say() {
  printf '== %s (after %d:%02d min)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

# begin NAME COMMAND...: runs it beside what comes next, which goes first; finish NAME: waits for it, and has its status.
begin() {
  local name=$1
  shift
  set -m
  nice -n 10 "$@" >"$work/$name.out" 2>"$work/$name.err" &
  set +m
  beside[$name]=$!
}
finish() {
  local code=0
  wait "${beside[$1]}" || code=$?
  unset "beside[$1]"
  return $code
}

# compiled NAME: waits for `begin NAME`, and says why if it failed.
compiled() {
  finish "$1" && built[$1]=yes && return
  echo "== $1 does not compile"
  cat "$work/$1.out" "$work/$1.err"
  status=1
}

# run_tests NAME DIR BUILD ARGS...: what `begin BUILD` compiled in DIR; ARGS choose the suites. What is said of one NAME, in
# however many parts, is counted together.
run_tests() {
  local name=$1 dir=$2 build=$3 part=$3
  shift 3
  if [[ -z ${built[$build]:-} ]]; then
    logs+=("$build=$work/not-built")
    return
  fi
  [[ " ${logs[*]} " == *" $name=$work/$name.json "* ]] || logs+=("$name=$work/$name.json")
  say "$name: ${*:-all}"
  # The limits end tests that hang; a machine that does other things as well gets four times as long.
  rm -f "$dir/meson-logs/$part.json"
  meson test -C "$dir" --no-rebuild --timeout-multiplier 4 --print-errorlogs --logbase "$part" "$@" >"$dir/$part.log" 2>&1 ||
    status=1
  cat "$dir/$part.log"
  cat "$dir/meson-logs/$part.json" >>"$work/$name.json"
}

ends() {
  say "the end"
  python3 tests/support/count.py "${notes[@]}" "${logs[@]}" || status=1
  exit $status
}

# No optimisation and no debug information: two thirds of the time that -O1 takes. The build for release has -O3.
first=host-tests
[[ $form != --quick ]] || first=quick-tests
begin g++ bash tests/support/compile.sh build $first -Doptimization=0 -Ddebug=false -Db_sanitize=none \
  -Dtests=enabled -Dexamples=enabled
if [[ $form == --quick ]]; then
  left_out="the room checkpoint, failing disks and memory, killed processes, each header alone, the examples, MPI, installing, "
  left_out+="the programs of the documentation, PyTorch"
  notes+=(--note "left out by --quick, for time: $left_out; \`bash tests/run.sh\` has them")
  notes+=(--note "left out without --full, for time: $only_full")
  compiled g++
  run_tests g++ build g++ --suite quick --suite compile_fail --suite architecture --suite scripts
  ends
fi

bash tests/install/conan.sh
if [[ $form == --full ]]; then
  begin bare-machine bash tests/bare_machine.sh 'bash examples/run.sh' 'bash tests/stranger.sh --limit 60'
fi
if [[ -z ${SHARDMESH_TORCH_PYTHON:-} ]]; then
  begin torch bash tests/interop/torch_env.sh
  say "PyTorch for the suite interop"
  finish torch
  SHARDMESH_TORCH_PYTHON=$(cat "$work/torch.out")
  SHARDMESH_TORCH_MISSING=$(tail -1 "$work/torch.err")
  export SHARDMESH_TORCH_PYTHON SHARDMESH_TORCH_MISSING
  echo "${SHARDMESH_TORCH_PYTHON:-$SHARDMESH_TORCH_MISSING}"
fi
if [[ $form == --full ]]; then
  say "the bare machine"
  code=0
  finish bare-machine || code=$?
  if ((code == 0 || code == 77)); then
    grep -E '^(==|SKIP)' "$work/bare-machine.out"
  else
    cat "$work/bare-machine.out" "$work/bare-machine.err"
    status=1
  fi
  logs+=("bare-machine!$code=$work/bare-machine.out")
fi
compiled g++

# The programs of the host suites are tested while the others compile.
begin g++-others bash tests/support/compile.sh build meson-test-prereq
some=()
[[ $form == --full ]] || some=(--no-suite slow)
run_tests g++ build g++ --suite host "${some[@]}"
compiled g++-others
if [[ $form != --full ]]; then
  notes+=(--note "left out without --full, for time: $only_full")
  run_tests g++ build g++-others --no-suite host --no-suite slow --no-suite release --no-suite fuzz
  ends
fi

# Where sanitizers watch, a large test takes 24 s to compile with clang -O0, 57 s with g++ -O0, 141 s with g++ -O1.
kind=clang compiler=clang++-19 sanitizing=(-Doptimization=0)
if ! echo 'int main() {}' | clang++-19 -fsanitize=address,undefined -x c++ - -o /dev/null 2>/dev/null; then
  kind=g++ compiler=c++ sanitizing=(-Doptimization=1)
  notes+=(--note "clang: no clang++-19 with sanitizers here; g++ stands in")
fi
sanitizing+=(-Ddebug=false -Db_lundef=false -Dcuda=disabled -Dmpi=disabled -Dexamples=disabled -Dbench=disabled
  -Dtests=enabled)
begin $kind-asan env CXX=$compiler bash tests/support/compile.sh build-$kind-asan host-tests \
  -Db_sanitize=address,undefined "${sanitizing[@]}"
run_tests g++ build g++-others --no-suite host
compiled $kind-asan
begin $kind-tsan env CXX=$compiler bash tests/support/compile.sh build-$kind-tsan rank-tests \
  -Db_sanitize=thread "${sanitizing[@]}"
run_tests $kind-asan build-$kind-asan $kind-asan --suite host
compiled $kind-tsan
run_tests $kind-tsan build-$kind-tsan $kind-tsan --suite ranks
ends
