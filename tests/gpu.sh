#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/gpu.sh [DIR]: everything that needs GPUs, on the GPUs of this machine, with one table last.
# Builds, runs the suites gpu and multigpu, the main job in device memory on each engine, and the suite
# gpu under compute-sanitizer where there is one. Logs go to DIR (default: build-gpu/logs). Exits
# non-zero if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-build-gpu/logs}"
logs=$(realpath "${1:-build-gpu/logs}")
build=build-gpu
[[ -f $build/build.ninja ]] ||
  meson setup $build -Dcuda=enabled -Dnccl=enabled -Dexamples=enabled >"$logs/setup.log" 2>&1 ||
  { cat "$logs/setup.log"; exit 1; }
ninja -C $build tests/test-gpu tests/test-multigpu examples/hsdp_resume >"$logs/build.log" 2>&1 ||
  { grep -E 'error|FAILED' "$logs/build.log" | head -20; exit 1; }

status=0
rows=()
# row NAME COMMAND...: runs it, keeps its output, notes how it ended.
row() {
  local name=$1 start=$SECONDS code=0
  shift
  "$@" >"$logs/$name.log" 2>&1 || code=$?
  case $code in
    0) rows+=("$(printf '%-34s ok      %4d s  %s' "$name" $((SECONDS - start)) "$(tail -1 "$logs/$name.log")")") ;;
    77) rows+=("$(printf '%-34s skipped         %s' "$name" "$(tail -1 "$logs/$name.log")")") ;;
    *)
      status=1
      rows+=("$(printf '%-34s FAILED  %4d s  exit %d' "$name" $((SECONDS - start)) $code)")
      tail -15 "$logs/$name.log"
      ;;
  esac
}

# processes N COMMAND...: N ranks as processes that share the GPUs; the output is rank 0's.
processes() {
  local n=$1 rank pids=() code=0
  shift
  export SHARDMESH_SHARE_DEVICES=1 WORLD_SIZE=$n MASTER_ADDR=127.0.0.1 MASTER_PORT=29517
  for ((rank = n - 1; rank > 0; --rank)); do
    RANK=$rank LOCAL_RANK=$rank "$@" >/dev/null &
    pids+=($!)
  done
  RANK=0 LOCAL_RANK=0 "$@" || code=$?
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  return $code
}

gpus=$(nvidia-smi -L 2>/dev/null | wc -l)
job=(timeout 120 $build/examples/hsdp_resume --out "$logs/checkpoints" --steps 10)
row gpu timeout 500 $build/tests/test-gpu
row multigpu timeout 500 $build/tests/test-multigpu
row hsdp_resume-4-threads "${job[@]}" --device cuda --ranks 4
row hsdp_resume-8-threads "${job[@]}" --device cuda --ranks 8
row hsdp_resume-nccl-threads "${job[@]}" --device cuda --engine nccl --ranks "$((gpus > 0 ? gpus : 1))"
row hsdp_resume-nccl-4-processes processes 4 "${job[@]}" --device cuda --engine environment
rm -rf "$logs/checkpoints"
if command -v compute-sanitizer >/dev/null; then
  # A test asks for a device that is not there; errors of the API are the tests' business.
  sanitizer=(timeout 400 compute-sanitizer --report-api-errors no --error-exitcode 9)
  row memcheck "${sanitizer[@]}" --tool memcheck $build/tests/test-gpu
  row racecheck "${sanitizer[@]}" --tool racecheck $build/tests/test-gpu
fi

grep -h 'cases$\|cases  \|ok$' "$logs/multigpu.log" "$logs/gpu.log" 2>/dev/null | grep -E 'nccl|ranks' || true
echo
nvidia-smi -L 2>/dev/null
printf '%s\n' "${rows[@]}"
exit $status
