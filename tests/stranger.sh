#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/stranger.sh [--limit SECONDS]: does in a clone what somebody does who has just found the library, and says how long each
# step took: installs what is missing; compiles the README's first program with the command that the README prints, and runs
# it; builds a program of their own in every way there is; compiles and runs all programs of the guide, and all examples. On a
# bare Debian: bash tests/bare_machine.sh 'bash tests/stranger.sh'. After SECONDS no further step begins; those left out are named.
set -uo pipefail
cd "$(dirname "$0")/.."
limit=3600
if [[ ${1:-} == --limit ]]; then
  limit=$2
elif (($# > 0)); then
  echo "usage: bash tests/stranger.sh [--limit SECONDS]" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0 left_out=() lines=()

# step NAME COMMAND...: 77 is "skipped", with the reason that it gives.
step() {
  local name=$1 start=$SECONDS code=0
  shift
  if ((SECONDS >= limit)); then
    left_out+=("$name")
    return
  fi
  "$@" >"$work/said" 2>&1 || code=$?
  local line
  line=$(printf '== stranger: %-28s %4d s  ' "$name" $((SECONDS - start)))
  case $code in
    0) line+=ok ;;
    77) line+="skipped: $(sed -n 's/^SKIP: //p' "$work/said" | tail -1)" ;;
    *)
      line+="FAILED (exit $code)"
      failed=$((failed + 1))
      tail -30 "$work/said"
      ;;
  esac
  lines+=("$line")
  echo "$line"
}

install_tools() {
  SHARDMESH_EXTRA_PACKAGES="cmake python3-venv" bash tests/setup.sh run
}

# The program and the command as they are printed.
first_program() {
  local command
  awk '/^```cpp$/ { inside = 1; next } /^```$/ && inside { exit } inside' README.md >"$work/first.cpp"
  command=$(grep -oE '`g\+\+ [^`]* first\.cpp [^`]*`' README.md | head -1 | tr -d '`')
  [[ -s $work/first.cpp && -n $command ]] || { echo "the README has no first program, or no command for it" && return 1; }
  echo "$command"
  ln -s "$PWD/include" "$work/include"
  (cd "$work" && $command && ./a.out) || return
}

run_examples() {
  local program
  ninja -C "$work/build" small-examples || return
  for program in load_safetensors mesh_tour offload redistribute resume tensor_parallel train_digits transfer visitor; do
    python3 tests/examples/examples.py "$work/build/examples/$program" || return
  done
  "$work/build/examples/shrink" threads 2
}

step "what is missing" install_tools
step "the README's first program" first_program
echo "== stranger: $SECONDS s from the clone to a program that runs"
step "conan, for its recipe" bash tests/install/conan.sh
step "meson setup" meson setup "$work/build" -Dcuda=disabled -Dmpi=disabled -Dexamples=enabled -Doptimization=0 -Ddebug=false
for way in plain pkg-config find-package add-subdirectory fetch-content meson-wrap cmake-install conan vcpkg; do
  step "a program by $way" python3 tests/install/consume.py "$way" "$work/build"
done
step "the guide's programs" python3 tests/guide.py g++
step "the examples" run_examples
echo "== stranger: $SECONDS s in all, ${#lines[@]} steps, $failed failed"
((${#left_out[@]} == 0)) || echo "== stranger: left out after $limit s: $(printf '%s, ' "${left_out[@]}" | sed 's/, $//')"
((failed == 0))
