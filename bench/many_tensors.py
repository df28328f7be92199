#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""many_tensors.py TOOL [COUNT] [--out FILE]: how long the tool takes to do what it does for a model of very many tensors.

Writes a safetensors file of COUNT tensors (222,747, as a large mixture of experts has) of 8 bytes each, without any library, and runs
`inspect`, `convert --to hf`, `convert --to dcp`, `verify` and `diff` on it, for a quarter of the tensors as well: what is linear takes
a quarter of the time. Prints a line of JSON for each; --out also writes them with machine, date, versions and commit."""
import argparse
import datetime
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time


def write_model(path, count):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for i in range(count):
        layer, expert = divmod(i, 384)
        header[f"model.layers.{layer}.mlp.experts.{expert}.gate_up_proj.weight_scale_inv"] = {
            "dtype": "F32", "shape": [2, 1], "data_offsets": [end, end + 8]}
        end += 8
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + os.urandom(end))


def measure(tool, count):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, hub, dcp = (os.path.join(folder, name) for name in ("model.safetensors", "hf", "dcp"))
        write_model(model, count)
        for case, words in (("inspect", ["inspect", model]), ("convert --to hf", ["convert", model, hub, "--to", "hf"]),
                            ("convert --to dcp", ["convert", model, dcp, "--to", "dcp"]), ("verify dcp", ["verify", dcp]),
                            ("diff dcp hf", ["diff", dcp, hub])):
            before, start = os.times(), time.perf_counter()
            done = subprocess.run([tool, *words], stdout=subprocess.PIPE, text=True, check=False)
            seconds, after = time.perf_counter() - start, os.times()
            if done.returncode != 0 or f"{count}" not in done.stdout:
                sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout[-300:]}")
            rows.append({"case": case, "tensors": count, "seconds": round(seconds, 3),
                         "cpu_seconds": round(after.children_user - before.children_user + after.children_system
                                              - before.children_system, 3)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool")
    parser.add_argument("count", nargs="?", type=int, default=222_747)
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_args()
    rows = measure(options.tool, options.count // 4) + measure(options.tool, options.count)
    if options.out:
        from files import HERE, first_line, processor
        result = {
            "suite": "bench/many_tensors.py",
            "date": datetime.date.today().isoformat(),
            "commit": first_line(["git", "-C", HERE, "rev-parse", "HEAD"]),
            "machine": {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
                        "load": round(os.getloadavg()[0], 2)},
            "versions": {"compiler": first_line(["c++", "--version"])},
            "rows": rows,
        }
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
