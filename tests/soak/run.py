#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""run.py BUILD_DIRECTORY: compiles the soak with ASan and UBSan (clang++-19, else c++), lets it find four mutants, and runs it for
SHARDMESH_SOAK_SECONDS (1800). SHARDMESH_SOAK_SEED: of an earlier run, to see it again. It is compiled here, so that whoever builds the
tests need not."""
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
MUTANTS = {"descriptor": "descriptors: ", "byte": "holds other bytes", "pool": "bytes of the pool: ", "leak": "bytes of heap: "}


def build(folder: pathlib.Path) -> pathlib.Path:
    compiler = [shutil.which("clang++-19") or "c++", "-std=c++20", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    ccache = ["ccache"] if shutil.which("ccache") else []
    objects = []
    commands = []
    for source in ["soak/soak.cpp", "disk/recorder.cpp", "support/main.cpp"]:
        objects.append(str(folder / (pathlib.Path(source).stem + ".o")))
        commands.append([*ccache, *compiler, f"-I{TOP}/include", f'-DSHARDMESH_TEST_DATA="{TOP}/tests/data"', "-c", str(TOP / "tests" / source), "-o", objects[-1]])
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))
    program = folder / "soak"
    subprocess.run([*compiler, *objects, "-o", str(program), "-lz", "-pthread"], check=True)
    return program


def main() -> int:
    folder = pathlib.Path(sys.argv[1]).resolve() / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    program = build(folder)
    for mutant, words in MUTANTS.items():
        environment = {**os.environ, "SHARDMESH_SOAK_MUTANT": mutant, "SHARDMESH_SOAK_SEED": "1", "SHARDMESH_SOAK_ROUNDS": "500", "SHARDMESH_SOAK_SECONDS": "600"}
        done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, errors="replace")
        if done.returncode == 0 or words not in done.stdout:
            print(f"the mutant \"{mutant}\" was not found: the soak proves nothing\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
            return 1
        print(f"soak: the mutant \"{mutant}\" is found", flush=True)
    return subprocess.run([str(program)]).returncode


if __name__ == "__main__":
    sys.exit(main())
