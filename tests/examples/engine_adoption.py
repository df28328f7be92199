#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""engine_adoption.py PROGRAM: the example's state comes back as it was, and no byte is copied into or out of the engine's
memory, or allocated there, that need not be. PROGRAM has at most 120 lines."""
import pathlib
import subprocess
import sys
import tempfile

source = pathlib.Path(__file__).resolve().parents[2] / "examples/engine_adoption.cpp"
if len(source.read_text().splitlines()) > 120:
    sys.exit(f"{source.name} has more than 120 lines")
state = 1000 * 64 * 2 + 1000 * 2 * 4 + 7 * 1001  # bytes of the example's three tensors
# Cut in four, each byte has one place to go to; a save takes each from one; two replicas are loaded.
needed = {"redistribute": state, "save": state, "load": 2 * state}
with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run([sys.argv[1], f"{folder}/checkpoint"], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"exit status {done.returncode}: {done.stdout}{done.stderr}")
lines = [line.split() for line in done.stdout.splitlines()]
awaited = [[name, "copied", str(count), "allocated", "0"] for name, count in needed.items()] + [["state", "equal"]]
if lines != awaited:
    sys.exit(f"{lines}\nwas awaited to be\n{awaited}")
print(f"{len(needed)} steps copied what they had to and allocated nothing; {len(source.read_text().splitlines())} lines")
