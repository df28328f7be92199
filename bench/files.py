#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""files.py BINARY [--peer PYTHON] [--small] [--runs N] [--out FILE] [PLACE...]: what saving and loading cost here and in PyTorch.

Runs bench/files and, with the Python that has PyTorch, torch_files.py one after the other in each place (default: /dev/shm and the
directory for temporary files), and prints a table: seconds, GB/s, and how many times as fast as PyTorch. --out also writes it as
JSON with machine, date, versions and commit."""
import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run(command):
    """The lines of JSON of a program; None where it says that it cannot be run here."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
                print(line.strip(), file=sys.stderr, flush=True)
    if program.returncode == 77:
        return None
    if program.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {program.returncode}")
    return lines


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def measure(options, place):
    scratch = tempfile.mkdtemp(prefix="shardmesh-files-", dir=place)
    more = (["--small"] if options.small else []) + ["--runs", str(options.runs)]
    try:
        ours = run([options.binary, scratch, *more])
        peer = run([options.peer, os.path.join(HERE, "torch_files.py"), scratch, *more]) if options.peer else None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    known = {(one["model"], one["case"]): one for one in peer or []}
    rows = []
    for one in ours:
        row = {"place": place, **one, "GB_per_s": round(one["bytes"] / one["seconds"] / 1e9, 3)}
        other = known.get((one["model"], one["case"]))
        if other is not None:
            row["torch_seconds"] = other["seconds"]
            row["torch_cpu_seconds"] = other["cpu_seconds"]
            row["times_as_fast"] = round(other["seconds"] / one["seconds"], 2)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("places", nargs="*", default=["/dev/shm", tempfile.gettempdir()])
    parser.add_argument("--peer", help="a Python that has PyTorch")
    parser.add_argument("--small", action="store_true", help="a few MB, to see that it works")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_intermixed_args()
    rows = [row for place in options.places for row in measure(options, place)]
    if len({(row["place"], row["model"], row["case"]) for row in rows}) != len(rows) or not rows:
        sys.exit("bench/files did not print each case once")
    for row in rows:
        times = f"{row['times_as_fast']:8.2f} x PyTorch" if "times_as_fast" in row else ""
        print(f"{row['place']:12} {row['model']:6} {row['case']:22} {row['seconds']:9.4f} s {row['cpu_seconds']:9.4f} s of processors {row['GB_per_s']:8.2f} GB/s {times}")
    if options.out:
        torch = first_line([options.peer, "-c", "import torch; print(torch.__version__)"]) if options.peer else None
        result = {
            "suite": "bench/files.py",
            "date": datetime.date.today().isoformat(),
            "commit": first_line(["git", "-C", HERE, "rev-parse", "HEAD"]),
            "machine": {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
                        "load": round(os.getloadavg()[0], 2)},
            "versions": {"torch": torch, "compiler": first_line(["c++", "--version"])},
            "ranks": 2,
            "runs": options.runs,
            "rows": rows,
        }
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
