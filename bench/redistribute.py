#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""redistribute.py PROGRAM [--ranks N] [--sides A,B] [--out FILE] [--svg FILE] [--summary FILE]: redistribution beside
PyTorch's DTensor and JAX, all in one run on this machine.

PROGRAM is bench/redistribute, built with CUDA and NCCL (a rank a GPU) or without (host memory). Runs it as threads and as
processes, then bench/torch_redistribute.py and bench/jax_redistribute.py where the Python of SHARDMESH_TORCH_PYTHON (else this
one) has PyTorch and JAX. Prints a table; --out writes everything as JSON with machine, date, versions and commit, --svg draws the ratios, --summary puts
one object for each figure that has a target into a list shared with other benchmarks. Exit 1 if an output was wrong."""
import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import socket
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[1]
SIZES = {1000: "3.8 MiB", 4096: "64 MiB", 16384: "1 GiB"}
# Geometric mean over PyTorch by number of GPUs and side; host microseconds with a cached plan by engine.
TARGETS = {2: {16384: 1.7, 4096: 3.5, 1000: 10}, 4: {16384: 1.75, 4096: 4.5, 1000: 15}}
HOST_TARGETS = {("threads", 2): 8, ("threads", 4): 10, ("processes", 2): 10, ("processes", 4): 10}
EFFICIENCY = {16384: 0.90, 4096: 0.70}


def ranks_of(command, ranks):
    """Runs `command` on so many processes; the lines of rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        environment = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank),
                           LOCAL_WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        processes.append(subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE))
    text = processes[0].communicate()[0]
    codes = [one.wait() for one in processes]
    return lines_of(text), max(map(abs, codes))


def lines_of(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def first_line(*command):
    try:
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def gpus():
    """The names of the GPUs."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], text=True, capture_output=True)
        return done.stdout.splitlines() if done.returncode == 0 else []
    except OSError:
        return []


def svg(results, ranks, path):
    """Bars: how many times faster than PyTorch, one group a case in which bytes move, one picture a size."""
    sides = sorted({one["side"] for one in results["threads"]})
    width, row = 720, 18
    body, top = [], 30
    for side in sides:
        body.append(f'<text x="10" y="{top}" font-weight="bold">{SIZES.get(side, f"{side} x {side}")}, {ranks} ranks: '
                    "times PyTorch's speed</text>")
        top += 10
        peers = {one["case"]: one["ms"] for one in results["torch"] if one["side"] == side}
        ratios = [(one["case"], engine, peers[one["case"]] / one["ms"]) for engine in ("threads", "processes")
                  for one in results[engine] if one["side"] == side and one["case"] in peers and not one["same_layout"]]
        most = max([ratio for *_, ratio in ratios] + [1])
        for case in dict.fromkeys(name for name, *_ in ratios):
            for engine, colour in (("threads", "#2b6cb0"), ("processes", "#90cdf4")):
                found = [ratio for name, who, ratio in ratios if name == case and who == engine]
                if not found:
                    continue
                length = found[0] / most * (width - 260)
                body.append(f'<text x="10" y="{top + 12}">{case.replace(">", "&gt;") if engine == "threads" else ""}</text>'
                            f'<rect x="150" y="{top + 2}" width="{length:.1f}" height="{row - 6}" fill="{colour}"/>'
                            f'<text x="{155 + length:.1f}" y="{top + 12}">{found[0]:.2f} {engine}</text>')
                top += row - 3
        line = 150 + (width - 260) / most
        body.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{top - len(ratios) * (row - 3)}" y2="{top}" '
                    'stroke="#c53030" stroke-dasharray="3 3"/>')
        top += 40
    pathlib.Path(path).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
                                  f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
                                  + "\n".join(body) + "</svg>\n")


def summary_rows(results, ranks, common):
    rows = []
    on_gpus = common["machine"]["gpu"] is not None  # what the targets are for

    def add(metric, unit, ours, peer, limit, target, higher=True):
        target = target if on_gpus else None
        met = None if target is None else (ours >= target if higher else ours <= target)
        rows.append({"group": "redistribute-speed", "metric": metric, "unit": unit, "ours": ours, "peer": peer,
                     "peer_name": "PyTorch DTensor" if peer else None, "limit": limit,
                     "ratio_to_peer": None, "ratio_to_limit": None, "target": target, "met": met, **common})

    for engine in ("threads", "processes"):
        for side in sorted({one["side"] for one in results[engine]}):
            mine = {one["case"]: one for one in results[engine] if one["side"] == side}
            peers = {one["case"]: one for one in results["torch"] if one["side"] == side}
            size = SIZES.get(side, f"side {side}")
            # Another name of the same layout costs nothing here and all that PyTorch does: it would lift every mean.
            shared = [name for name in mine if name in peers and not mine[name]["same_layout"]]
            if shared:
                ratios = {name: peers[name]["ms"] / mine[name]["ms"] for name in shared}
                add(f"{engine}, {ranks} ranks, {size}: geometric mean over PyTorch of the {len(shared)} cases in which bytes move",
                    "x", mean(ratios.values()), 1, None, TARGETS.get(ranks, {}).get(side))
                rows[-1]["ratio_to_peer"] = rows[-1]["ours"]
                worst = min(ratios, key=ratios.get)
                add(f"{engine}, {ranks} ranks, {size}: slowest case over PyTorch ({worst})", "x", ratios[worst], 1, None,
                    1.05)
                rows[-1]["ratio_to_peer"] = ratios[worst]
            jax = {one["case"]: one for one in results["jax"] if one["side"] == side}
            shared = [name for name in mine if name in jax and not mine[name]["same_layout"]]
            if shared:  # JAX tells no time on the device: as the host sees it, for both
                ratios = {name: jax[name]["wall_ms"] / mine[name]["wall_ms"] for name in shared}
                worst = min(ratios, key=ratios.get)
                add(f"{engine}, {ranks} ranks, {size}: slowest case over JAX ({worst}), geometric mean {mean(ratios.values()):.2f}",
                    "x", ratios[worst], 1, None, 1.3)
                rows[-1].update(peer_name="JAX", ratio_to_peer=ratios[worst])
            # What a plain copy takes over the links is measured by threads, which see each other's memory.
            limits = {one["case"]: one["limit_ms"] for one in results["threads"] if one["side"] == side}
            bound = [limits[name] / one["ms"] for name, one in mine.items() if limits.get(name, 0) > 0]
            if bound:
                add(f"{engine}, {ranks} ranks, {size}: efficiency against a plain copy of the bytes that must arrive", "x",
                    mean(bound), None, 1, EFFICIENCY.get(side))
                rows[-1]["ratio_to_limit"] = rows[-1]["ours"]
            host = mean([one["host_us"] for one in mine.values() if one["limit_ms"] > 0])
            if on_gpus and side == 1000:
                add(f"{engine}, {ranks} ranks: host time of a cached redistribute", "us", host, None, None,
                    HOST_TARGETS.get((engine, ranks)), higher=False)
    for ranks_of_plan, target in ((64, 50), (16384, 20)):
        times = [one["us"] for one in results["plans"] if one["plan"].startswith(f"{ranks_of_plan} ranks")]
        add(f"a new plan, {ranks_of_plan} ranks, the slowest of {len(times)}", "us", max(times), None, None, target, higher=False)
        rows[-1].update(target=target, met=max(times) <= target)  # of a processor, whatever GPUs there are
    return rows


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--sides", default="1000,4096,16384")
    parser.add_argument("--out")
    parser.add_argument("--svg")
    parser.add_argument("--summary")
    options = parser.parse_args()
    ranks = options.ranks or len(gpus()) or 2
    sides = options.sides.split(",")
    python = os.environ.get("SHARDMESH_TORCH_PYTHON") or sys.executable
    results, codes = {}, []
    done = subprocess.run([options.program, "threads", str(ranks), *sides], text=True, stdout=subprocess.PIPE)
    results["threads"] = lines_of(done.stdout)
    codes.append(done.returncode)
    results["processes"], code = ranks_of([options.program, "processes", str(ranks), *sides], ranks)
    codes.append(code)
    results["plans"] = lines_of(subprocess.run([options.program, "plans", "0", "0"], text=True, stdout=subprocess.PIPE).stdout)
    results["torch"] = []
    torch = first_line(python, "-c", "import torch; print(torch.__version__)")
    if torch == "unknown":
        print("SKIP: no PyTorch beside: set SHARDMESH_TORCH_PYTHON")
    else:
        results["torch"], code = ranks_of([python, str(TOP / "bench/torch_redistribute.py"), *sides], ranks)
        codes.append(code)
    results["jax"] = []
    jax = first_line(python, "-c", "import jax; print(jax.__version__)")
    if jax == "unknown":
        print("SKIP: no JAX beside: set SHARDMESH_TORCH_PYTHON")
    else:
        environment = dict(os.environ)
        if not gpus():
            environment.update(JAX_PLATFORMS="cpu", XLA_FLAGS=f"--xla_force_host_platform_device_count={ranks}")
        done = subprocess.run([python, str(TOP / "bench/jax_redistribute.py"), str(ranks), *sides], env=environment, text=True,
                              stdout=subprocess.PIPE)
        results["jax"] = lines_of(done.stdout)
        codes.append(done.returncode)
    peers = {(one["case"], one["side"]): one for one in results["torch"]}
    others = {(one["case"], one["side"]): one for one in results["processes"]}
    against = {(one["case"], one["side"]): one for one in results["jax"]}
    print(f"{'case':<14}{'side':>7}{'limit ms':>10}{'torch ms':>10}{'threads':>10}{'x':>7}{'host us':>9}"
          f"{'processes':>11}{'x':>7}{'host us':>9}{'wall ms':>10}{'JAX wall':>10}")
    for one in results["threads"]:
        key = (one["case"], one["side"])
        peer, other = peers.get(key), others.get(key)
        text = f"{one['case']:<14}{one['side']:>7}{one['limit_ms']:>10.3f}{peer['ms'] if peer else 0:>10.3f}"
        for mine in (one, other):
            text += f"{mine['ms']:>10.3f}{peer['ms'] / mine['ms'] if peer else 0:>7.2f}{mine['host_us']:>9.1f}" if mine else ""
        if other:
            text += f"{other['wall_ms']:>10.3f}"
        if key in against:
            text += f"{against[key]['wall_ms']:>10.3f}"
        print(text)
    wrong = sum(one.get("wrong", 0) for lines in results.values() for one in lines)
    card = next(iter(gpus()), None)
    common = {"machine": {"gpu": card, "ranks": ranks, "cpu": platform.processor() or platform.machine(),
                          "cores": os.cpu_count()},
              "date": datetime.date.today().isoformat(),
              "commit": os.environ.get("SHARDMESH_COMMIT") or first_line("git", "-C", str(TOP), "rev-parse", "--short", "HEAD")}
    rows = summary_rows(results, ranks, common)
    for row in rows:
        print(f"{row['metric']}: {row['ours']:.3f} {row['unit']}"
              + ("" if row["target"] is None else f" (target {row['target']}, {'met' if row['met'] else 'NOT met'})"))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(
            {"benchmark": "redistribute", **common, "versions": {"torch": torch, "jax": jax}, "results": results}, indent=1) + "\n")
    if options.svg and results["torch"]:
        svg(results, ranks, options.svg)
    if options.summary:
        path = pathlib.Path(options.summary)
        kept = json.loads(path.read_text()) if path.exists() else []
        # The slowest case may be another one.
        def known(row):
            return row["group"], row["metric"].partition(" (")[0].partition(" over ")[0], row["peer_name"]

        new = {known(row) for row in rows}
        path.write_text(json.dumps([row for row in kept if known(row) not in new] + rows, indent=1) + "\n")
    if wrong:
        print(f"{wrong} elements were wrong")
    sys.exit(1 if wrong or any(codes) else 0)


if __name__ == "__main__":
    main()
