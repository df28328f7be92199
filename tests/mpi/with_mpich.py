#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""with_mpich.py TOP: builds the tests of MPI once more, with MPICH's compiler, and runs them under its mpiexec.
Exit 77: there is no MPICH beside the MPI that the other tests use."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

import mpirun

TOP = pathlib.Path(sys.argv[1])
HERE = TOP / "tests" / "mpi"

if shutil.which("mpicxx.mpich") is None:
    mpirun.skip("no mpicxx.mpich here (mpich, libmpich-dev)")
mpirun.starter("mpich")

with tempfile.TemporaryDirectory() as folder:
    def build(name: str) -> subprocess.Popen:
        return subprocess.Popen(["mpicxx.mpich", "-std=c++20", "-O0", f"-I{TOP}/include", "-DMPICH_SKIP_MPICXX",
                                 f'-DSHARDMESH_TEST_DATA="{TOP}/tests/data"', HERE / f"{name}.cpp", "-o", f"{folder}/{name}",
                                 "-lz", "-pthread"])

    builds = [build("mpi"), build("program")]
    if any(one.wait() != 0 for one in builds):
        sys.exit("mpicxx.mpich does not compile the tests")
    runs = [[HERE / "mpirun.py", "mpich", ranks, f"{folder}/mpi"] for ranks in "12346"]
    for command in [*runs, [HERE / "launch.py", "mpich", f"{folder}/program"]]:
        print(f"== {' '.join(map(str, command[1:3]))}", flush=True)
        if subprocess.run([sys.executable, *command]).returncode != 0:
            sys.exit("failed")
