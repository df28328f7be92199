#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""many_tensors.py TOOL [COUNT]: how long the tool takes to inspect and to convert a model of very many tensors.

Writes a safetensors file of COUNT tensors (222,747, as a large mixture of experts has) of 8 bytes each, without any library, and runs
`TOOL inspect`, `TOOL convert --to hf` and `TOOL convert --to dcp` on it; prints a line of JSON for each."""
import json
import os
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


def main():
    tool, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 222_747
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.safetensors")
        write_model(model, count)
        for words in (["inspect", model], ["convert", model, os.path.join(folder, "hf"), "--to", "hf"],
                      ["convert", model, os.path.join(folder, "dcp"), "--to", "dcp"]):
            before, start = os.times(), time.perf_counter()
            done = subprocess.run([tool, *words], stdout=subprocess.PIPE, text=True, check=False)
            after = os.times()
            if done.returncode != 0 or (words[0] == "inspect" and f"{count}" not in done.stdout.replace(",", "")):
                sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stdout[-300:]}")
            print(json.dumps({"case": " ".join(words[:1] + words[3:]), "tensors": count, "seconds": round(time.perf_counter() - start, 3),
                              "cpu_seconds": round(after.children_user - before.children_user + after.children_system
                                                   - before.children_system, 3)}), flush=True)


if __name__ == "__main__":
    main()
