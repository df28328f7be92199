#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""mpirun.py KIND RANKS PROGRAM ARGS...: runs a program on ranks that share this machine. KIND is openmpi or mpich,
the MPI that the program is linked to; none says that the tests were built without. Exit 77: there is no mpirun."""
import os
import shutil
import sys

STARTERS = {"openmpi": ("mpirun.openmpi", "mpirun", "mpiexec"), "mpich": ("mpiexec.mpich", "mpirun.mpich", "mpiexec", "mpirun")}


def starter(kind: str) -> list[str]:
    """What starts programs of this MPI: more ranks than cores, and by root, are welcome here."""
    if kind not in STARTERS:
        skip("built without MPI; install libopenmpi-dev or libmpich-dev, and set the build up again")
    for name in STARTERS[kind]:
        if path := shutil.which(name):
            return [path, "--oversubscribe"] if kind == "openmpi" else [path]
    skip(f"no {STARTERS[kind][0]} here")


def is_there(kind: str) -> bool:
    return any(shutil.which(name) for name in STARTERS[kind])


def environment(kind: str) -> dict[str, str]:
    if kind == "openmpi":
        return os.environ | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    # UCX warns of messages that nobody takes: tests of failures leave some.
    return os.environ | {"UCX_LOG_LEVEL": "error"}


def skip(reason: str) -> None:
    print(f"SKIP: {reason}")
    sys.exit(77)


if __name__ == "__main__":
    kind, ranks, *program = sys.argv[1:]
    command = [*starter(kind), "-n", ranks, *program]
    os.execve(command[0], command, environment(kind))
