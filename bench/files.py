#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""files.py BINARY [--peer PYTHON] [--device cpu|cuda] [--ranks N] [--engine E] [--small] [--runs N] [--out FILE] [PLACE...]: what
saving and loading cost here and in PyTorch.

Runs bench/files in each place (default: /dev/shm and the directory for temporary files), then, with the Python that has PyTorch,
torch_files.py, and prints a table: seconds, GB/s, how many times as fast as PyTorch (and the other loaders of safetensors that its
Python has) at its best, and what part of the limit measured beside is reached. --device cuda needs a BINARY built with CUDA and
NCCL; what does not depend on the place is then measured in the first one alone, and all ends within --limit seconds (240), with
what has been printed until then. --out also writes it as JSON with machine, date, versions and commit (SHARDMESH_COMMIT, if set).
Ends with 1 if a case has failed or was wrong."""
import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# In PyTorch every full and every offloaded state is made in fresh memory.
SAME_FOR_PEER = {"full state, cold pool": "full state", "offload, cold pool": "offload", "load, cold pool": "load, same layout",
                 "async save, caller blocked, device snapshot": "async save, caller blocked, host snapshot"}


def end(programs):
    for program in programs:
        try:
            os.killpg(program.pid, signal.SIGKILL)  # its children too: it leads a group of its own
        except ProcessLookupError:
            pass


def run(command, until, environments=({},)):
    """The lines of JSON of the first of some processes of a program, and whether all ended well; None for the lines where it
    says that it cannot be run here."""
    left = until - time.monotonic()
    if left <= 0:
        return [], f"no time was left for {' '.join(command)}"
    programs = [subprocess.Popen(command, env={**os.environ, **more}, text=True, start_new_session=True,
                                 stdout=subprocess.PIPE if i == 0 else subprocess.DEVNULL)
                for i, more in enumerate(environments)]
    late = threading.Event()
    timer = threading.Timer(min(left, threading.TIMEOUT_MAX), lambda: (late.set(), end(programs)))
    timer.start()
    lines = []
    try:
        for line in programs[0].stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
                print(line.strip(), file=sys.stderr, flush=True)
        codes = [program.wait() for program in programs]
    finally:
        timer.cancel()
        end(program for program in programs if program.poll() is None)
    if codes[0] == 77:
        return None, ""
    if late.is_set():
        return lines, f"{' '.join(command)} was ended: no time was left"
    return lines, f"{' '.join(command)} ended with {codes}" if any(codes) else ""


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


def gpus():
    """Name and driver of each GPU."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], text=True,
                              capture_output=True, check=True)
        return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]
    except (OSError, subprocess.CalledProcessError):
        return []


def versions(options):
    """Those of the compiler, and of what the peer's Python has."""
    found = {"compiler": first_line(["c++", "--version"]), "torch": None}
    if options.peer:
        found["torch"] = first_line([options.peer, "-c", "import torch; print(torch.__version__)"])
        names = ["safetensors"]
        if options.device == "cuda":
            names += ["instanttensor", "fastsafetensors", "runai-model-streamer"]
            found["nccl of torch"] = first_line([options.peer, "-c", "import torch; print(*torch.cuda.nccl.version(), sep='.')"])
            found["nvcc"] = subprocess.run("nvcc --version | sed -n 's/.*release //p'", shell=True, text=True,
                                           capture_output=True, check=False).stdout.strip() or "unknown"
        for name in names:
            found[name] = first_line([options.peer, "-c", f"import importlib.metadata as m; print(m.version('{name}'))"])
    return found


def processes(ranks):
    """What a launcher tells so many ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [{"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks),
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} for rank in range(ranks)]


def measure(options, command, place, first, until, environments=({},)):
    """What a program prints that measures in a place."""
    scratch = tempfile.mkdtemp(prefix="shardmesh-files-", dir=place)
    more = ["--runs", str(options.runs)]
    if options.small:
        more.append("--small")
    if options.device == "cuda":
        more += ["--device", "cuda", "--ranks", str(options.ranks), "--budget", str(options.budget)]
    elif options.all:
        more.append("--all")
    if not first and (options.device == "cuda" or options.all):
        more.append("--files-only")
    try:
        return run([*command, scratch, *more], until, environments)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def rows_of(options, place, ours, peer):
    """Our lines with the peer's beside them, and what the peer alone has."""
    ways = {}
    for one in peer:
        ways.setdefault((one["model"], one["case"]), []).append(one)
    rows = []
    for one in ours:
        row = {"place": place, **one}
        rows.append(row)
        if "error" in one:
            continue
        row["GB_per_s"] = round(one["bytes"] / one["seconds"] / 1e9, 3)
        if "limit_seconds" in one:
            row["part_of_limit"] = round(one["limit_seconds"] / one["seconds"], 3)
        case = one["case"]
        if options.device == "cuda" and (one["model"], case) not in ways:
            case = SAME_FOR_PEER.get(case, case)
        others = [way for way in ways.get((one["model"], case), []) if "seconds" in way]
        if others:
            best = min(others, key=lambda way: way["seconds"])
            row["torch_seconds"] = best["seconds"]
            row["torch_cpu_seconds"] = best["cpu_seconds"]
            row["times_as_fast"] = round(best["seconds"] / one["seconds"], 2)
            if "variant" in best:
                row["torch_variant"] = best["variant"]
    return rows


def show(row):
    head = f"{row['place']:12} {row['model']:6} {row['case']:46}"
    if "error" in row:
        return f"{head} FAILED: {row['error']}"
    text = f"{head} {row['seconds']:9.4f} s {row['cpu_seconds']:9.4f} s of processors {row['GB_per_s']:8.2f} GB/s"
    if "part_of_limit" in row:
        text += f" {row['part_of_limit']:6.3f} of {row['limit']}"
    if "times_as_fast" in row:
        text += f" {row['times_as_fast']:8.2f} x PyTorch" + (f" ({row['torch_variant']})" if "torch_variant" in row else "")
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("places", nargs="*", default=["/dev/shm", tempfile.gettempdir()])
    parser.add_argument("--peer", help="a Python that has PyTorch")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ranks", type=int, default=0, help="with cuda; default: a rank for each GPU")
    parser.add_argument("--engine", choices=("threads", "nccl", "processes"), default="threads", help="with cuda")
    parser.add_argument("--all", action="store_true", help="with cpu: the rows of the other form as well")
    parser.add_argument("--small", action="store_true", help="a few MB, to see that it works")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--budget", type=float, default=2, help="with cuda: seconds after which a case is not run again")
    parser.add_argument("--limit", type=float, help="seconds for everything")
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_intermixed_args()
    cuda = options.device == "cuda"
    cards = gpus() if cuda else []
    options.ranks = (options.ranks or len(cards) or 1) if cuda else 2
    until = time.monotonic() + (options.limit or (240 if cuda else float("inf")))
    began = time.monotonic()
    command, environments = [options.binary], [{}]
    if cuda:
        command += ["--engine", options.engine]
        if options.engine == "processes":
            environments = processes(options.ranks)
    problems, ours, peers = [], {}, {}
    for i, place in enumerate(options.places):
        ours[place], problem = measure(options, command, place, i == 0, until, environments)
        problems += [problem] if problem else []
    for i, place in enumerate(options.places if options.peer else []):
        peers[place], problem = measure(options, [options.peer, os.path.join(HERE, "torch_files.py")], place, i == 0, until)
        problems += [problem] if problem else []
    rows = [row for place in options.places for row in rows_of(options, place, ours[place] or [], peers.get(place) or [])]
    if len({(row["place"], row["model"], row["case"]) for row in rows}) != len(rows) or not rows:
        problems.append("bench/files did not print each case once")
    for row in rows:
        print(show(row))
    for place, lines in peers.items():
        for one in lines or []:
            if "variant" in one or "seconds" not in one or not any(
                    (row["model"], row["case"]) == (one["model"], one["case"]) for row in rows):
                name = " by ".join(one[key] for key in ("case", "variant") if key in one)
                said = f"{one['seconds']:9.4f} s" if "seconds" in one else one.get("error") or "left out: " + one.get("skipped", "")
                print(f"{place:12} {one['model']:6} PyTorch: {name}: {said}")
    if options.out:
        result = {
            "suite": "bench/files.py",
            "date": datetime.date.today().isoformat(),
            "commit": os.environ.get("SHARDMESH_COMMIT") or first_line(["git", "-C", HERE, "rev-parse", "HEAD"]),
            "machine": {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release(),
                        "load": round(os.getloadavg()[0], 2)},
            "versions": versions(options),
            "ranks": options.ranks,
            "runs": options.runs,
            "rows": rows,
        }
        if cuda:
            result["machine"].update(gpus=[name for name, _ in cards], driver=cards[0][1] if cards else "unknown")
            result.update(engine=options.engine, seconds=round(time.monotonic() - began), problems=problems, peers=peers)
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    # PyTorch's failures are in its lines; they do not make ours wrong.
    sys.exit(1 if problems or any("error" in row for row in rows) else 0)


if __name__ == "__main__":
    main()
