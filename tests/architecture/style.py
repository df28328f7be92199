#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""style.py format|tidy: is every source as clang-format writes it; has clang-tidy nothing to say? Exit 77:
the tool is missing."""
import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]


def need(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    print(f"SKIP: no {names[0]} here")
    sys.exit(77)


def sources(*folders: str) -> list[str]:
    kinds = {".hpp", ".cpp", ".cuh", ".cu"}
    return sorted(str(p) for f in folders for p in (TOP / f).rglob("*") if p.suffix in kinds)


if sys.argv[1] == "format":
    tool = need("clang-format-19")
    sys.exit(subprocess.run([tool, "--dry-run", "--Werror", *sources("include", "tests", "examples", "bench")]).returncode)

tool = need("clang-tidy-19")
flags = ["-std=c++20", f"-I{TOP}/include"]
units = [str(TOP / "examples" / name) for name in ("hsdp_resume.cpp", "redistribute.cpp")]
flags += [f'-DEXAMPLE_DATA="{TOP}/examples/data"']
processes = [subprocess.Popen([tool, "--quiet", "--warnings-as-errors=*", unit, "--", *flags], cwd=TOP) for unit in units]
sys.exit(max(process.wait() for process in processes))
