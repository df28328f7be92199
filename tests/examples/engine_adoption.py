#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""engine_adoption.py PROGRAM: the state of engine_adoption or engine_adoption_nccl comes back as it was. On the host no byte is
copied into or out of the engine's memory, or allocated there, that need not be; GPUs send each other what they must and no more.
PROGRAM has at most 120 lines. Exit status 77 where there is no GPU."""
import pathlib
import subprocess
import sys
import tempfile

name = pathlib.Path(sys.argv[1]).name
source = pathlib.Path(__file__).resolve().parents[2] / f"examples/{name}.cpp"
count = len(source.read_text().splitlines())
if count > 120:
    sys.exit(f"{source.name} has more than 120 lines")
with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run([sys.argv[1], f"{folder}/checkpoint"], capture_output=True, text=True, timeout=120)
if name == "engine_adoption_nccl" and ("no CUDA-capable device" in done.stderr or "driver version is insufficient" in done.stderr or "no GPU" in done.stderr):
    print(f"SKIP: {done.stderr.strip()}")
    sys.exit(77)
if done.returncode != 0:
    sys.exit(f"exit status {done.returncode}: {done.stdout}{done.stderr}")
lines = [line.split() for line in done.stdout.splitlines()]


def parts(extent: int, ranks: int) -> list[int]:
    """Of a dimension, rank by rank, as PyTorch cuts it."""
    chunk = -(-extent // ranks)
    return [max(0, min(extent - rank * chunk, chunk)) for rank in range(ranks)]


def sent(ranks: int) -> int:
    """Bytes that must travel from rows to columns: all but those where a rank's rows and columns meet."""
    shapes = [(1000, 64, 2), (7, 1001, 1)]
    return sum(size * (a * b - sum(x * y for x, y in zip(parts(a, ranks), parts(b, ranks)))) for a, b, size in shapes)


if name == "engine_adoption_nccl":
    # redistribute took N bytes, sent N
    if [line[0] for line in lines] != ["redistribute", "save", "load", "state"] or lines[3][1] != "equal,":
        sys.exit(f"{done.stdout}{done.stderr}")
    found = [ranks for ranks in range(1, 65) if sent(ranks) == int(lines[0][-1])]
    if not found:
        sys.exit(f"no number of GPUs sends that many bytes: {done.stdout}")
    print(f"{found[0]} GPUs sent what they had to; {count} lines")
else:
    state = 1000 * 64 * 2 + 1000 * 2 * 4 + 7 * 1001  # bytes of the example's three tensors
    # Cut in four, each byte has one place to go to; a save takes each from one; two replicas are loaded.
    needed = {"redistribute": state, "save": state, "load": 2 * state}
    awaited = [[step, "copied", str(bytes), "allocated", "0"] for step, bytes in needed.items()] + [["state", "equal"]]
    if lines != awaited:
        sys.exit(f"{lines}\nwas awaited to be\n{awaited}")
    print(f"{len(needed)} steps copied what they had to and allocated nothing; {count} lines")
