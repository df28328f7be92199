#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""files.py BINARY [--peer PYTHON] [--device cpu|cuda] [--ranks N] [--engine E] [--small] [--runs N] [--out FILE] [--summary FILE]
[PLACE...]: what saving and loading cost here and in PyTorch.

Runs bench/files in each place (default: /dev/shm and the directory for temporary files), then, with the Python that has PyTorch,
torch_files.py, and prints a table: seconds, GB/s, how many times as fast as PyTorch (and the other loaders of safetensors that its
Python has) at its best, and what part of the limit measured beside is reached. --device cuda needs a BINARY built with CUDA and
NCCL; what does not depend on the place is then measured in the first one alone, and all ends within --limit seconds (240), with
what has been printed until then. --out also writes it as JSON with machine, date, versions and commit (SHARDMESH_COMMIT, if set);
--summary puts one object for each figure that has a target into a list shared with other benchmarks. Ends with 1 if a case has failed or was wrong."""
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
# Model, case, and whether in memory (else on a disk): at least so many times as fast as PyTorch at its best, and such a part of
# the limit, with a rank a GPU.
TARGETS = {
    ("large", "full state", True): (25, 0.8), ("large", "full state, cold pool", True): (8, None), ("large", "offload", True): (15, None),
    ("large", "save", True): (3, 0.75), ("large", "save", False): (1.2, 0.95),
    ("large", "load, same layout", True): (8, None), ("large", "load, resharding", True): (15, None),
    ("large", "load, same layout", False): (8, None), ("large", "load, resharding", False): (15, None),
    ("large", "safetensors load, one GPU", True): (1, None), ("large", "safetensors load, one GPU", False): (1, None),
    ("large", "safetensors load", True): (1, None), ("large", "safetensors load, replicated", True): (1, None),
    ("large", "async save, caller blocked, host snapshot", True): (None, 0.8),
    ("tiny", "full state", True): (40, None), ("tiny", "save", True): (30, None), ("tiny", "load, same layout", True): (30, None),
}
MOST_SECONDS = {("large", "async save, caller blocked, device snapshot", True): 0.01}


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
            names += ["instanttensor", "fastsafetensors"]
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


def summary_rows(result):
    """One object for each figure of a JSON of the GPU form that has a target, as in bench/results/summary.json."""
    rows = []
    common = {"machine": {"gpu": result["machine"]["gpus"][0], "ranks": result["ranks"], "cores": result["machine"]["cores"]},
              "date": result["date"], "commit": result["commit"]}
    for row in result["rows"]:
        if "error" in row:
            continue
        in_memory = row["place"].startswith("/dev/shm")
        where = f"{result['engine']}, {result['ranks']} ranks, {'tmpfs' if in_memory else 'disk'}: {row['model']}, {row['case']}"
        key = (row["model"], row["case"], in_memory)
        ratios = dict(zip(("times_as_fast", "part_of_limit"), TARGETS.get(key, (None, None))))
        for name, target in ratios.items():
            if target is None or name not in row:
                continue
            of_peer = name == "times_as_fast"
            rows.append({"group": "state-speed", "metric": f"{where}{': times as fast' if of_peer else ': part of ' + row['limit']}",
                         "unit": "s", "ours": row["seconds"], "peer": row["torch_seconds"] if of_peer else None,
                         "peer_name": ", ".join(["PyTorch", *([row["torch_variant"]] if "torch_variant" in row else [])]) if of_peer else None,
                         "limit": None if of_peer else row["limit_seconds"], "ratio_to_peer": row[name] if of_peer else None,
                         "ratio_to_limit": None if of_peer else row[name], "target": target, "met": row[name] >= target, **common})
        if key in MOST_SECONDS:
            rows.append({"group": "state-speed", "metric": where, "unit": "s", "ours": row["seconds"], "peer": None, "peer_name": None,
                         "limit": None, "ratio_to_peer": None, "ratio_to_limit": None, "target": MOST_SECONDS[key],
                         "met": row["seconds"] <= MOST_SECONDS[key], **common})
    return rows


def add_to_summary(path, rows):
    """New figures take the places of older ones of the same."""
    kept = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
    new = {(row["group"], row["metric"]) for row in rows}
    with open(path, "w", encoding="utf-8") as file:
        json.dump([row for row in kept if (row["group"], row["metric"]) not in new] + rows, file, indent=1)
        file.write("\n")


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
    parser.add_argument("--summary", help="with cuda: file with a list of figures and their targets")
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
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
    if options.summary and cuda:
        add_to_summary(options.summary, summary_rows(result))
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    # PyTorch's failures are in its lines; they do not make ours wrong.
    sys.exit(1 if problems or any("error" in row for row in rows) else 0)


if __name__ == "__main__":
    main()
