#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""job.py HSDP_RESUME: the main job on threads, and as processes as torchrun starts them; both must train alike."""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

JOB = sys.argv[1]
EQUAL = "Every resumed state is bit-equal to the state that was saved."


def check(output: str, status: int, what: str, meshes: int) -> list[str]:
    rows = [line for line in output.splitlines() if "bit-equal  " in line or "first load  " in line]
    if status != 0 or EQUAL not in output or len(rows) != meshes:
        sys.exit(f"{what}: exit {status}, {len(rows)} meshes\n{output[-3000:]}")
    return [" ".join(re.split(r"\s+", row)[:-1]) for row in rows]


def on_threads(ranks: int, out: str, meshes: int) -> list[str]:
    done = subprocess.run([JOB, "--ranks", str(ranks), "--steps", "5", "--out", out], text=True, capture_output=True)
    return check(done.stdout + done.stderr, done.returncode, f"{ranks} threads", meshes)


def as_processes(ranks: int, out: str) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    started = []
    for rank in range(ranks):
        variables = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | {k: str(v) for k, v in variables.items()}
        started.append(subprocess.Popen([JOB, "--engine", "environment", "--steps", "5", "--out", out], env=environment,
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    outputs = [process.communicate(timeout=120)[0] for process in started]
    for process, output in zip(started[1:], outputs[1:]):
        if process.returncode != 0:
            sys.exit(f"a process ended with {process.returncode}: {output[-2000:]}")
    return check(outputs[0], started[0].returncode, f"{ranks} processes", 4)


with tempfile.TemporaryDirectory() as folder:
    threads = on_threads(4, folder + "/a", 4)
    on_threads(1, folder + "/b", 2)
    on_threads(3, folder + "/c", 3)
    on_threads(8, folder + "/d", 4)
    processes = as_processes(4, folder + "/e")
    if threads != processes:
        sys.exit(f"threads and processes differ:\n{threads}\n{processes}")
    done = subprocess.run([JOB, "--checkpoint", folder, "--out", folder + "/f"], text=True, capture_output=True)
    if done.returncode != 1 or ".metadata" not in done.stderr:
        sys.exit(f"no checkpoint: exit {done.returncode}, {done.stderr!r}")
print("\n".join(threads))
