#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""results.py WORK FILE: the results of tests/gpu.sh as one JSON file, for bench/results/.

WORK holds rows.tsv, a log for each row and what the benchmarks wrote. The commit is SHARDMESH_COMMIT's, or
git's."""
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def lines_of(path):
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def read_json(path):
    return json.loads(path.read_text()) if path.exists() else None


def main():
    work, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    rows = [dict(zip(("name", "result", "exit", "seconds", "last_line"), line.split("\t")))
            for line in lines_of(work / "rows.tsv")]
    for row in rows:
        row["exit"], row["seconds"] = int(row["exit"]), int(row["seconds"])
    checks = [dict(zip(("check", "result"), re.split(r"\s{2,}|\s(?=ok$)", line.strip(), maxsplit=1)))
              for part in ("processes", "disagreements", "threads")
              for line in lines_of(work / f"multigpu-{part}.log") if line.startswith("nccl")]
    found = {match.groups() for match in (re.search(r"(\d+) ranks: (\d+) cases", line)
                                          for line in lines_of(work / "gpu.log")) if match}
    threads = [{"ranks": int(ranks), "cases": int(cases)}
               for ranks, cases in sorted(found, key=lambda one: int(one[0]))]
    nccl = {match.group(0) for match in (re.search(r"NCCL [\d.]+", line)
                                         for line in lines_of(work / "bench-collectives.log")) if match}
    gpus = [line.split(", ") for line in said("nvidia-smi", "--query-gpu=name,driver_version",
                                              "--format=csv,noheader").splitlines()]
    result = {
        "suite": "tests/gpu.sh",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "commit": os.environ.get("SHARDMESH_COMMIT") or said("git", "rev-parse", "HEAD") or "unknown",
        "machine": {"gpus": [one[0] for one in gpus], "driver": gpus[0][-1] if gpus else "",
                    "cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {"nvcc": re.sub(r"(?s).*release ([\d.]+).*", r"\1", said("nvcc", "--version")),
                     "compiler": said("g++", "--version").splitlines()[:1],
                     "nccl": " ".join(sorted(nccl))},
        "rows": rows,
        "nccl": checks,
        "threads in device memory: redistribute": threads,
        "kills": [line for line in lines_of(work / "kill-nccl.log") if line.startswith("kill -9")],
        "collectives": read_json(work / "collectives.json"),
        "collectives of PyTorch": read_json(work / "torch_collectives.json"),
    }
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
