#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""release.py [--umbrellas] COMPILER...: programs that include the headers as their own, not as a system's, compile without
a warning when they are optimised: the tool with -O3, the main job with -O2, and every function of the headers, used or
not. What g++ says only after inlining (-Wrestrict, -Wstringop-overflow ...) is not seen by the other builds.

With --umbrellas the headers alone, and of those of checkpoints only what they use themselves: half a minute of g++."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
ONLY_UMBRELLAS = sys.argv[1:2] == ["--umbrellas"]
COMPILER = sys.argv[1 + ONLY_UMBRELLAS:]
# The umbrella headers, and what none of them includes and a host compiler takes.
FILES = ["checkpoint", "processes"]
OTHERS = ["shardmesh", "interop/dlpack", "interop/foreign_tensor", "interop/mdspan", "interop/ranges", "memory/pmr_resource"]
# Distributions define _FORTIFY_SOURCE; the C library then warns of more results that nobody looks at.
FLAGS = ["-std=c++20", "-DNDEBUG", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include", f'-DEXAMPLE_DATA="{TOP}/examples/data"']


def compile_one(source: pathlib.Path, *flags: str) -> str:
    """What the compiler says, if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*COMPILER, *FLAGS, *flags, "-c", source, "-o", pathlib.Path(folder, "out.o")], text=True, capture_output=True)
    return "" if done.returncode == 0 else f"{source.name} {' '.join(flags)}:\n{done.stderr}"


def including(folder: str, name: str, headers: list[str]) -> pathlib.Path:
    """A program that includes headers."""
    source = pathlib.Path(folder, name + ".cpp")
    source.write_text("".join(f"#include <shardmesh/{header}.hpp>\n" for header in headers))
    return source


with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
    # clang has no option that keeps what nobody calls; it warns before it optimises.
    is_clang = "clang" in subprocess.run([*COMPILER, "--version"], text=True, capture_output=True, check=True).stdout
    keep = [] if is_clang else ["-fkeep-inline-functions"]
    if ONLY_UMBRELLAS:
        work = [pool.submit(compile_one, including(folder, "umbrellas", OTHERS), "-O2", *keep),
                pool.submit(compile_one, including(folder, "umbrellas_of_files", FILES), "-O2")]
    else:
        work = [pool.submit(compile_one, TOP / "examples/shardmesh.cpp", "-O3"), pool.submit(compile_one, TOP / "examples/hsdp_resume.cpp", "-O2"),
                pool.submit(compile_one, including(folder, "umbrellas", FILES + OTHERS), "-O2", *keep)]
    if said := "".join(one.result() for one in work):
        sys.exit(said)
print("no warnings")
