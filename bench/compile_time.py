#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""compile_time.py [--out FILE] [--limit SECONDS]: what it costs to include the library.

Compiles translation units that include one header and nothing else (g++ -std=c++20 -O0, best of five, wall
seconds): the umbrella, each room, the process and device engines where they compile; beside them the
standard headers alone that the umbrella includes, and <torch/torch.h> where a PyTorch with its C++ headers is
importable. Then the first program of the README, optimised (-O2, CPU seconds: it takes long enough to be disturbed), header-only, with
SHARDMESH_SEPARATE_COMPILATION, and the translation unit that then has the rest. Prints a table; --out adds machine, date, versions and commit as JSON. Exit 1 if the umbrella takes
longer than the limit (2.5 s)."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
CXX = os.environ.get("CXX", "g++")
ROOMS = ["core", "layout", "plan", "memory", "comm", "mesh", "tensor", "state", "optim", "fsdp", "checkpoint"]


def seconds(lines: list[str], flags: list[str], repeats: int) -> float | None:
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder) / "unit.cpp"
        unit.write_text("".join(line + "\n" for line in lines))
        best = None
        for _ in range(repeats):
            start = time.perf_counter()
            done = subprocess.run([CXX, "-std=c++20", *flags, "-c", unit, "-o", unit.with_suffix(".o")], capture_output=True)
            took = time.perf_counter() - start
            if done.returncode != 0:
                return None
            best = took if best is None else min(best, took)
        return best


def program_seconds(text: str, *flags: str) -> float | None:
    """CPU seconds of the optimised compilation of one program."""
    with tempfile.TemporaryDirectory() as folder:
        unit = pathlib.Path(folder) / "unit.cpp"
        unit.write_text(text)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([CXX, "-std=c++20", "-O2", f"-I{TOP}/include", *flags, "-c", unit, "-o", unit.with_suffix(".o")], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if done.returncode == 0 else None


def first_program() -> str:
    """Of the README."""
    return re.search(r"```cpp\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL).group(1)


def standard_headers() -> list[str]:
    """Every header outside the library that the umbrella reaches."""
    text = subprocess.run([CXX, "-std=c++20", f"-I{TOP}/include", "-M", TOP / "include/shardmesh/shardmesh.hpp"],
                          text=True, capture_output=True, check=True).stdout
    own = [p for p in text.replace("\\\n", " ").split() if p.startswith(str(TOP))]
    found = set()
    for path in own:
        found |= set(re.findall(r"#\s*include <([a-z0-9_./]+)>", pathlib.Path(path).read_text()))
    return sorted(name for name in found if not name.startswith("shardmesh/"))


def torch_flags() -> list[str] | None:
    code = "import torch.utils.cpp_extension as c; print('\\n'.join(c.include_paths()))"
    done = subprocess.run([os.environ.get("PYTHON", "python3"), "-c", code], text=True, capture_output=True)
    return [f"-isystem{path}" for path in done.stdout.split()] if done.returncode == 0 else None


def version(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True, cwd=TOP)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else "unknown"


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out")
    options.add_argument("--limit", type=float, default=2.5)
    chosen = options.parse_args()
    own = [f"-I{TOP}/include"]
    rows: dict[str, float | None] = {}
    rows["standard headers alone"] = seconds([f"#include <{name}>" for name in standard_headers()], own, 5)
    rows["shardmesh/shardmesh.hpp"] = seconds(["#include <shardmesh/shardmesh.hpp>"], own, 5)
    for room in ROOMS:
        rows[f"shardmesh/{room}.hpp"] = seconds([f"#include <shardmesh/{room}.hpp>"], own, 5)
    rows["shardmesh/processes.hpp"] = seconds(["#include <shardmesh/processes.hpp>"], own, 5)
    if (flags := torch_flags()) is not None:
        rows["torch/torch.h"] = seconds(["#include <torch/torch.h>"], flags, 1)
    program = first_program()
    rows["the README's program, -O2"] = program_seconds(program)
    rows["... separate compilation"] = program_seconds(program, "-DSHARDMESH_SEPARATE_COMPILATION")
    rows["... its shardmesh/src.hpp"] = program_seconds("#include <shardmesh/src.hpp>\n")
    for name, took in rows.items():
        print(f"{name:28} {'does not compile here' if took is None else f'{took:6.2f} s'}")
    if chosen.out:
        record = {"benchmark": "compile_time", "date": datetime.date.today().isoformat(), "cpu": processor(),
                  "compiler": version(CXX, "--version"), "commit": version("git", "rev-parse", "HEAD"),
                  "seconds": {k: v and round(v, 3) for k, v in rows.items()}}
        pathlib.Path(chosen.out).write_text(json.dumps(record, indent=1) + "\n")
    umbrella = rows["shardmesh/shardmesh.hpp"]
    if umbrella is None or umbrella > chosen.limit:
        print(f"the umbrella is over the limit of {chosen.limit} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
