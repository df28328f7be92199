#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""release.py COMPILER...: programs that include the headers as their own, not as a system's, compile without a warning
when they are optimised: the tool with -O3, the main job with -O2, and every function of the umbrella headers, used or
not. What g++ says only after inlining (-Wrestrict, -Wstringop-overflow ...) is not seen by the other builds."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
UMBRELLAS = "".join(f"#include <shardmesh/{name}.hpp>\n" for name in ("checkpoint", "processes", "shardmesh"))
# Distributions define _FORTIFY_SOURCE; the C library then warns of more results that nobody looks at.
FLAGS = ["-std=c++20", "-DNDEBUG", "-D_FORTIFY_SOURCE=2", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include", f'-DEXAMPLE_DATA="{TOP}/examples/data"']


def compile_one(source: pathlib.Path, *flags: str) -> str:
    """What the compiler says, if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*sys.argv[1:], *FLAGS, *flags, "-c", source, "-o", pathlib.Path(folder, "out.o")], text=True, capture_output=True)
    return "" if done.returncode == 0 else f"{source.name} {' '.join(flags)}:\n{done.stderr}"


with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
    umbrella = pathlib.Path(folder, "umbrella.cpp")
    umbrella.write_text(UMBRELLAS)
    # clang has no option that keeps what nobody calls; it warns before it optimises.
    is_clang = "clang" in subprocess.run([*sys.argv[1:], "--version"], text=True, capture_output=True).stdout
    work = [pool.submit(compile_one, TOP / "examples/shardmesh.cpp", "-O3"), pool.submit(compile_one, TOP / "examples/hsdp_resume.cpp", "-O2"),
            pool.submit(compile_one, umbrella, "-O2", *([] if is_clang else ["-fkeep-inline-functions"]))]
    if said := "".join(one.result() for one in work):
        sys.exit(said)
print("no warnings")
