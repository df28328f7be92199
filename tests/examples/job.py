#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""job.py HSDP_RESUME MPI TOOL: the main job on threads, as processes as torchrun and srun start them, by torchrun
itself where SHARDMESH_TORCH_PYTHON names a Python that has it, under the mpirun of MPI (none: without) and under
srun on two nodes where a Slurm can be started. All must train alike and save the same bits (TOOL compares; none: the
files are compared)."""
import os
import pathlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "mpi"))
import mpirun
import slurm

JOB, MPI, TOOL = sys.argv[1:]
EQUAL = "Every resumed state is bit-equal to the state that was saved."


def check(output: str, status: int, what: str, meshes: int) -> list[str]:
    rows = [line for line in output.splitlines() if "bit-equal  " in line or "first load  " in line]
    if status != 0 or EQUAL not in output or len(rows) != meshes:
        sys.exit(f"{what}: exit {status}, {len(rows)} meshes\n{output[-3000:]}")
    return [" ".join(re.split(r"\s+", row)[:-1]) for row in rows]


def on_threads(ranks: int, out: str, meshes: int) -> list[str]:
    done = subprocess.run([JOB, "--ranks", str(ranks), "--steps", "5", "--out", out], text=True, capture_output=True)
    return check(done.stdout + done.stderr, done.returncode, f"{ranks} threads", meshes)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def as_torchrun(rank: int, ranks: int) -> dict[str, object]:
    return {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}


def as_srun(rank: int, ranks: int) -> dict[str, object]:
    """Two nodes, which are this one; SLURM_STEP_NODELIST names it."""
    half = (ranks + 1) // 2
    return {"SLURM_PROCID": rank, "SLURM_NTASKS": 99, "SLURM_STEP_NUM_TASKS": ranks, "SLURM_LOCALID": rank % half,
            "SLURM_NODEID": rank // half, "SLURM_STEP_TASKS_PER_NODE": f"{half},{ranks - half}",
            "SLURM_STEP_NODELIST": "localhost,node[02-17]", "SLURM_JOB_ID": 4711, "SLURM_STEP_ID": 0}


def as_processes(ranks: int, out: str, launcher) -> list[str]:
    port = free_port()
    started = []
    for rank in range(ranks):
        environment = os.environ | {k: str(v) for k, v in launcher(rank, ranks).items()} | {"MASTER_PORT": str(port)}
        started.append(subprocess.Popen([JOB, "--engine", "environment", "--steps", "5", "--out", out], env=environment,
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    outputs = [process.communicate(timeout=120)[0] for process in started]
    for process, output in zip(started[1:], outputs[1:]):
        if process.returncode != 0:
            sys.exit(f"a process ended with {process.returncode}: {output[-2000:]}")
    return check(outputs[0], started[0].returncode, f"{ranks} processes {launcher.__name__}", 4)


def under(launcher: list[str], engine: str, out: str, environment: dict[str, str]) -> list[str]:
    """4 ranks, started by a launcher that is really there."""
    done = subprocess.run([*launcher, JOB, "--engine", engine, "--steps", "5", "--out", out], env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200)
    return check(done.stdout, done.returncode, " ".join(launcher), 4)


def compare(what: str, rows: list[str], out: str) -> None:
    """With the job on threads: what it printed, and every checkpoint that it saved."""
    if rows != threads:
        sys.exit(f"threads and {what} differ:\n{threads}\n{rows}")
    steps = sorted(path.name for path in pathlib.Path(folder, "threads").iterdir())
    if len(steps) != 4 or steps != sorted(path.name for path in pathlib.Path(out).iterdir()):
        sys.exit(f"{what} saved other checkpoints than {steps}")
    for step in steps:
        pair = [f"{folder}/threads/{step}", f"{out}/{step}"]
        command = [TOOL, "diff", *pair] if TOOL != "none" else ["diff", "-r", *pair]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{step} of threads and {what} differ:\n{done.stdout}{done.stderr}")
    print(f"{what}: {len(steps)} checkpoints equal those of 4 threads")


with tempfile.TemporaryDirectory() as folder:
    threads = on_threads(4, folder + "/threads", 4)
    compare("4 threads again", on_threads(4, folder + "/again", 4), folder + "/again")
    on_threads(1, folder + "/b", 2)
    on_threads(3, folder + "/c", 3)
    on_threads(8, folder + "/d", 4)
    for launcher in (as_torchrun, as_srun):
        out = f"{folder}/{launcher.__name__}"
        compare(f"4 processes {launcher.__name__}", as_processes(4, out, launcher), out)
    if python := os.environ.get("SHARDMESH_TORCH_PYTHON"):
        torchrun = [python, "-m", "torch.distributed.run", "--no-python", "--standalone", "--nproc-per-node", "4"]
        compare("4 processes of torchrun", under(torchrun, "environment", folder + "/torchrun", os.environ), folder + "/torchrun")
    else:
        print("torchrun: left out, SHARDMESH_TORCH_PYTHON is not set")
    if MPI != "none" and mpirun.is_there(MPI):
        launcher = [*mpirun.starter(MPI), "-n", "4"]
        compare("4 MPI processes", under(launcher, "mpi", folder + "/mpi", mpirun.environment(MPI)), folder + "/mpi")
        environment = mpirun.environment(MPI) | {"MASTER_PORT": str(free_port())}
        compare("4 processes of mpirun", under(launcher, "environment", folder + "/mpirun", environment), folder + "/mpirun")
    else:
        print("mpirun: left out, there is none for the MPI of this build")
    try:
        with slurm.cluster() as environment:
            srun = ["srun", "--quiet", "--ntasks", "4", "--nodes"]
            environment |= {"SHARDMESH_JOB_SECRET": secrets.token_hex(16)}  # srun passes it on
            rows = under([*srun, "2"], "environment", folder + "/srun", environment)
            compare("4 processes of srun on 2 nodes", rows, folder + "/srun")
            if MPI == "openmpi":  # on one node: what Slurm's PMIx writes in /tmp names no node
                rows = under([*srun, "1", "--mpi=pmix"], "mpi", folder + "/srun-mpi", environment)
                compare("4 MPI processes of srun", rows, folder + "/srun-mpi")
    except slurm.Missing as reason:
        print(f"srun: left out, {reason}")
    done = subprocess.run([JOB, "--checkpoint", folder, "--out", folder + "/f"], text=True, capture_output=True)
    if done.returncode != 1 or ".metadata" not in done.stderr:
        sys.exit(f"no checkpoint: exit {done.returncode}, {done.stderr!r}")
print("\n".join(threads))
