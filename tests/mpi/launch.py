#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""launch.py KIND PROGRAM: starts program.cpp under the real mpirun of KIND (see mpirun.py): jobs that end well, and
jobs with a rank that throws, hangs, is stopped or killed, works for long, or finds no other ranks. Each must end by itself, with words."""
import os
import shutil
import socket
import subprocess
import sys

import mpirun

KIND, PROGRAM = sys.argv[1:]
PATIENCE = 120  # seconds, of ranks that must not wait for so long; for a job that hangs, twice that
OTHER = {"openmpi": "mpich", "mpich": "openmpi"}[KIND]
NAMES = {"openmpi": "Open MPI", "mpich": "MPICH"}


def run(kind: str, ranks: int, deed: str, timeout_ms: int = 1000 * PATIENCE, **variables: str) -> tuple[int, str]:
    command = [*mpirun.starter(kind), "-n", str(ranks), PROGRAM, deed, str(timeout_ms)]
    done = subprocess.run(command, env=mpirun.environment(kind) | variables, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=2 * PATIENCE)
    return done.returncode, done.stdout


def expect(what: str, good: bool, seen: object) -> None:
    print(f"{'ok' if good else 'FAILED'}: {what}")
    if not good:
        sys.exit(f"{seen}")


for ranks in (1, 2, 3, 4):
    status, text = run(KIND, ranks, "good")
    lines = [f"rank {rank} of {ranks}: sum {ranks * (ranks + 1) // 2}" for rank in range(ranks)]
    expect(f"{ranks} ranks end well, handles that outlive MPI included", status == 0 and sorted(text.split("\n"))[1:] == lines, text)

status, text = run(KIND, 2, "again")
expect("MPI does not start twice", status != 0 and "MPI has been finalized, and starts only once" in text, text)

status, text = run(KIND, 4, "throw")
expect("a rank that throws ends the job at once, with its words",
       status != 0 and "the disk is full" in text and "did not arrive" not in text, text)

for timeout_ms in (2000, 30000):  # on a busy machine others are late as well, and named
    status, text = run(KIND, 4, "hang", timeout_ms)
    named = f" rank 3 did not arrive within {timeout_ms} ms"
    if named in text:
        break
expect("a rank that hangs ends the job when the time is over, and is named", status != 0 and named in text, text)

for deed, ranks, what in (("work", 4, "a rank that works for three times the timeout"),
                          ("alone-work", 4, "the same where MPI takes calls from one thread only"),
                          ("relay", 3, "one that waits in another group for one that works")):
    for timeout_ms in (500, 5000, 30000):  # on a busy machine others are late as well
        status, text = run(KIND, ranks, deed, timeout_ms)
        if status == 0:
            break
    expect(f"{what} is waited for", status == 0 and text.count(f" of {ranks}: sum ") == ranks, text)

for deed, what in (("stop", "a rank that is stopped"), ("work-stop", "a rank that is stopped while it works")):
    for timeout_ms in (1000, 10000, 30000):  # on a busy machine nothing is heard of others as well
        status, text = run(KIND, 4, deed, timeout_ms)
        named = f" rank 3 did not arrive: nothing has been heard from it for {timeout_ms} ms; it hangs or is stopped"
        if named in text:
            break
    expect(f"{what} is given up when nothing has been heard from it for the time of silence", status != 0 and named in text, text)

status, text = run(KIND, 4, "kill")
expect("a rank that is killed ends the job: the launcher's doing", status != 0 and " of 4: sum" not in text and "did not arrive" not in text, text)

with socket.create_server(("127.0.0.1", 0)) as door:
    port = str(door.getsockname()[1])
status, text = run(KIND, 3, "environment", MASTER_PORT=port)
lines = [f"{NAMES[KIND]}: {rank}/3, local {rank}/3" for rank in range(3)] + [f"rank {rank} of 3: sum 6" for rank in range(3)]
expect("environment{} finds its place under this mpirun", status == 0 and sorted(text.split("\n"))[1:] == sorted(lines), text)

if any(shutil.which(name) for name in mpirun.STARTERS[OTHER][:1]):
    status, text = run(OTHER, 2, "good")
    expect("the mpirun of another MPI is noticed", status != 0 and "MPI says that this process is alone, but" in text, text)
