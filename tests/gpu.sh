#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/gpu.sh [DIR [build]]: everything that needs GPUs, on the GPUs of this machine, one or many, with one
# table last. Builds (and no more, if told so); runs the suites gpu and multigpu (killed processes and MPI
# included); the main job on each engine, and compares the states it saved bit by bit; checkpoints both ways
# with the PyTorch that is here, which trains on the same GPUs; compute-sanitizer; and, where there are two
# GPUs, the benchmark of collectives beside PyTorch's. DIR (default: build-gpu/logs) gets gpu.log, all that
# was said, and gpu_results.json, the table with counts, times, machine and versions. Exits non-zero if
# anything failed. Nothing is installed; what is not there is skipped. SHARDMESH_GPU_ROWS, a regular
# expression of names, runs only those rows.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:-build-gpu/logs}"
logs=$(realpath "${1:-build-gpu/logs}")
build=$PWD/build-gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$logs/gpu.log"
status=0
rows=()

# row NAME COMMAND...: runs it, keeps what it says, notes how it ended.
row() {
  local name=$1 start=$SECONDS code=0 result=ok last
  shift
  [[ $name =~ ^(build|${SHARDMESH_GPU_ROWS:-.*})$ ]] || return 0
  "$@" >"$work/$name.log" 2>&1 || code=$?
  case $code in
    0) ;;
    77) result=skipped ;;
    *)
      result=FAILED
      status=1
      echo "== $name failed with $code; the end of what it said:"
      tail -40 "$work/$name.log"
      ;;
  esac
  last=$(grep -v '^[[:space:]]*$' "$work/$name.log" | tail -1 | tr '\t' ' ')
  rows+=("$(printf '%-36s %-8s %4d s  %.110s' "$name" $result $((SECONDS - start)) "$last")")
  echo "${rows[-1]}"
  printf '%s\t%s\t%d\t%d\t%s\n' "$name" $result $code $((SECONDS - start)) "$last" >>"$work/rows.tsv"
  { echo "==== $name: $result, exit $code, $((SECONDS - start)) s" && cat "$work/$name.log"; } >>"$logs/gpu.log"
}

# processes N COMMAND...: N ranks as processes that share the GPUs; the output is rank 0's.
processes() {
  local n=$1 rank pids=() code=0
  shift
  local shared=(env SHARDMESH_SHARE_DEVICES=1 WORLD_SIZE="$n" MASTER_ADDR=127.0.0.1 MASTER_PORT=29517)
  for ((rank = n - 1; rank > 0; --rank)); do
    "${shared[@]}" RANK=$rank LOCAL_RANK=$rank "$@" >/dev/null &
    pids+=($!)
  done
  "${shared[@]}" RANK=0 LOCAL_RANK=0 "$@" || code=$?
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  return $code
}

skip() {
  echo "SKIP: $1"
  return 77
}

mpi=disabled
command -v mpirun >/dev/null && command -v mpicxx >/dev/null && mpi=enabled

build_all() {
  local targets=(tests/{test-gpu,test-gpu-doors,test-multigpu,kill-job-nccl,test-gather-memory,resave}
    examples/{hsdp_resume,engine_adoption_nccl,shrink_nccl,shardmesh} bench/{collectives,kernels})
  if [[ $mpi == enabled ]]; then
    targets+=(tests/mpi/test-mpi tests/mpi/test-nccl-mpi)
  fi
  # The benchmarks ask for more optimisation by themselves.
  [[ -f $build/build.ninja ]] || meson setup "$build" -Dcuda=enabled -Dnccl=enabled -Dmpi=$mpi \
    -Dtests=enabled -Dexamples=enabled -Dbench=enabled -Doptimization=1 -Ddebug=false || return
  ninja -C "$build" "${targets[@]}"
}

# by_mpirun N COMMAND...: N ranks under Open MPI's mpirun or MPICH's, whichever is here.
by_mpirun() {
  python3 tests/mpi/mpirun.py "$mpi_kind" "$@"
}

# job NAME COMMAND...: the main job; its checkpoints go to $work/NAME.
job() {
  local name=$1
  shift
  row "hsdp_resume-$name" timeout 120 "$@" --out "$work/$name" --steps 10
}

gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU')
row build build_all
if [[ ${rows[0]} == *FAILED* || ${2:-} == build ]]; then
  exit $status
fi
row gpu timeout 300 "$build/tests/test-gpu"
row gpu-doors timeout 100 "$build/tests/test-gpu-doors"
row multigpu-processes timeout 300 "$build/tests/test-multigpu" processes
row multigpu-disagreements timeout 400 "$build/tests/test-multigpu" disagreements
row multigpu-threads timeout 400 "$build/tests/test-multigpu" threads
mpi_kind=openmpi
mpirun --version 2>/dev/null | grep -q 'Open MPI' || mpi_kind=mpich
if [[ $mpi == enabled ]]; then
  row mpi-2 by_mpirun 2 timeout 200 "$build/tests/mpi/test-mpi"
  for n in 1 2 3 4; do
    row nccl-mpi-$n by_mpirun $n timeout 200 "$build/tests/mpi/test-nccl-mpi"
  done
else
  row nccl-mpi skip "no MPI here"
fi
row gather-memory timeout 200 "$build/tests/test-gather-memory"
row kill-nccl timeout 400 python3 tests/gpu/kill.py "$build/tests/kill-job-nccl"
for rank in 0 1 2 3; do
  row shrink-rank-$rank env SHARDMESH_SHARE_DEVICES=$((gpus < 4)) timeout 120 "$build/examples/shrink_nccl" gpus $rank
done
row engine-adoption-nccl timeout 200 python3 tests/examples/engine_adoption.py "$build/examples/engine_adoption_nccl"

resume=("$build/examples/hsdp_resume")
shared=(env SHARDMESH_SHARE_DEVICES=1)
job 4-threads-host "${resume[@]}" --ranks 4
job 4-threads-device "${resume[@]}" --ranks 4 --device cuda
job 8-threads-device "${resume[@]}" --ranks 8 --device cuda
job nccl-threads "${resume[@]}" --ranks "$((gpus > 0 ? gpus : 1))" --device cuda --engine nccl
row hsdp_resume-4-processes processes 4 timeout 120 "${resume[@]}" --device cuda --engine environment \
  --out "$work/4-processes" --steps 10
if python3 -c 'import torch' 2>/dev/null; then
  job 4-torchrun "${shared[@]}" python3 -m torch.distributed.run --standalone --local-addr 127.0.0.1 \
    --no-python --nproc-per-node 4 "${resume[@]}" --device cuda --engine environment
else
  row hsdp_resume-4-torchrun skip "no PyTorch here, so no torchrun"
fi
if [[ $mpi == enabled ]]; then
  # The launcher alone is MPI's; then MPI carries what NCCL does not, sharing GPUs and with one a rank.
  row hsdp_resume-4-mpirun by_mpirun 4 "${shared[@]}" MASTER_ADDR=127.0.0.1 MASTER_PORT=29519 \
    timeout 120 "${resume[@]}" --device cuda --engine environment --out "$work/4-mpirun" --steps 10
  row hsdp_resume-4-mpi-host by_mpirun 4 timeout 120 "${resume[@]}" --engine mpi --out "$work/4-mpi-host" --steps 10
  row hsdp_resume-4-nccl-mpi by_mpirun 4 "${shared[@]}" timeout 120 "${resume[@]}" --device cuda --engine mpi \
    --out "$work/4-nccl-mpi" --steps 10
  row "hsdp_resume-$gpus-nccl-mpi-own-gpu" by_mpirun "$gpus" timeout 120 "${resume[@]}" --device cuda --engine mpi \
    --out "$work/own-gpu" --steps 10
else
  row hsdp_resume-mpi skip "no MPI here"
fi
for name in 4-threads-device 4-processes 4-torchrun 4-mpirun 4-mpi-host 4-nccl-mpi; do
  if [[ -d $work/$name/step-40 ]]; then
    row "same-state-$name" "$build/examples/shardmesh" diff "$work/4-threads-host/step-40" "$work/$name/step-40"
  fi
done

row interop timeout 400 python3 tests/interop/interop.py "$build/tests/resave" "$build/examples/shardmesh"
row interop-training timeout 300 python3 tests/interop/training.py "$build/tests/resave" "$build/examples/shardmesh" \
  "${resume[0]}"
row interop-training-8 timeout 400 python3 tests/interop/training.py "$build/tests/resave" "$build/examples/shardmesh" \
  "${resume[0]}" 8

if command -v compute-sanitizer >/dev/null && ((gpus > 0)); then
  # A test asks for a device that is not there; errors of the API are the tests' business.
  sanitizer=(timeout 150 compute-sanitizer --report-api-errors no --error-exitcode 9)
  row memcheck "${sanitizer[@]}" --tool memcheck "$build/tests/test-gpu" --test-case-exclude='twenty steps*'
  row racecheck "${sanitizer[@]}" --tool racecheck "$build/tests/test-gpu" --test-case-exclude='twenty steps*'
  row synccheck "${sanitizer[@]}" --tool synccheck "$build/tests/test-gpu" --test-case='B*'
  row initcheck "${sanitizer[@]}" --tool initcheck "$build/tests/test-gpu" --test-case='B*'
fi
row bench-kernels timeout 120 "$build/bench/kernels" "$logs/kernels.json"
row bench-collectives timeout 120 "$build/bench/collectives" "$work/collectives.json"
if python3 -c 'import torch' 2>/dev/null; then
  row bench-torch-collectives timeout 120 python3 bench/torch_collectives.py "$work/torch_collectives.json"
fi

grep -shE ' ok$|cases|kill -9' "$work"/multigpu-*.log "$work/kill-nccl.log" | cut -c1-150
grep -shE 'ranks: .* cases' "$work/gpu.log" | sort -u
cat "$work/bench-collectives.log" "$work/bench-torch-collectives.log" 2>/dev/null
python3 tests/gpu/results.py "$work" "$logs/gpu_results.json"
echo
nvidia-smi -L 2>/dev/null | cut -c1-40
printf '%s\n' "${rows[@]}"
exit $status
