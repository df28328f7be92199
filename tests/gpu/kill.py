#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""kill.py JOB [--ranks N] [--kills N] [--timeout S]: kill -9 of one of N processes while they redistribute,
and while they save.

All others must exit within the timeout of the job + 30 s, by themselves, not with 0, with an error that names
the rank that was killed; after a kill in a save the last checkpoint must verify and load. The ranks take
turns to be killed; in every second job on GPUs they write into each other's memory. Prints `kill -9 during ...: K of N` for each, and why where one failed."""
import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


def free_port():
    with socket.socket() as one:
        one.bind(("", 0))
        return one.getsockname()[1]


class Ranks:
    """The processes of one job; what they say goes to files."""

    def __init__(self, job, mode, ranks, timeout, scratch, pushes):
        self.scratch = scratch
        shared = dict(os.environ, WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()),
                      SHARDMESH_SHARE_DEVICES="1", NCCL_DEBUG="WARN", KILL_JOB_TIMEOUT=str(timeout))
        if pushes:  # into each other's memory, however small the tensors; else by messages
            shared["SHARDMESH_PUSH_FROM"] = "0"
        self.processes = []
        for rank in range(ranks):
            with open(self.path(rank, "out"), "wb") as out, open(self.path(rank, "err"), "wb") as err:
                self.processes.append(subprocess.Popen([job, mode, str(scratch / "checkpoint")],
                                                       env=dict(shared, RANK=str(rank), LOCAL_RANK=str(rank)),
                                                       stdout=out, stderr=err))

    def path(self, rank, what):
        return self.scratch / f"{rank}.{what}"

    def text(self, rank, what):
        return self.path(rank, what).read_text(errors="replace")

    def wait_until(self, condition, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.01)
        return condition()

    def ended(self):
        return all(one.poll() is not None for one in self.processes)

    def last_saved(self):
        steps = re.findall(r"^saved (\d+)$", self.text(0, "out"), re.M)
        return int(steps[-1]) if steps else 0

    def end(self):
        for one in self.processes:
            if one.poll() is None:
                one.kill()
            one.wait()


def kill_once(options, mode, number, scratch):
    """What went wrong, as lines, and the time until the last survivor had ended."""
    victim = number % options.ranks
    ranks = Ranks(options.job, mode, options.ranks, options.timeout, scratch, pushes=number % 2 == 0)
    try:
        if not ranks.wait_until(lambda: "ready" in ranks.text(0, "out") or ranks.processes[0].poll() is not None, 180) \
                or any(one.poll() is not None for one in ranks.processes):
            return ["the job did not get ready"] + details(ranks, options.ranks), 0
        time.sleep(random.uniform(0, 0.3))
        ranks.processes[victim].send_signal(signal.SIGKILL)
        start = time.monotonic()
        in_time = ranks.wait_until(ranks.ended, options.timeout + 30)
        seconds = time.monotonic() - start
        problems = [] if in_time else [f"not all had ended after {seconds:.1f} s"]
        for rank, process in enumerate(ranks.processes):
            if rank == victim or process.poll() is None:
                continue
            if process.returncode <= 0:
                problems.append(f"rank {rank} ended with {process.returncode}, expected an exit status of 1")
            if not re.search(rf"error: .*\brank {victim}\b", ranks.text(rank, "err")):
                problems.append(f"the error of rank {rank} does not name rank {victim}")
        if mode == "save":
            problems += check_checkpoint(options, ranks, scratch)
        return problems + (details(ranks, options.ranks) if problems else []), seconds
    finally:
        ranks.end()


def check_checkpoint(options, ranks, scratch):
    saved = ranks.last_saved()
    check = subprocess.run([options.job, "check", scratch / "checkpoint"], capture_output=True, text=True)
    held = re.search(r"holds (\d+)", check.stdout)
    if check.returncode != 0 or held is None:
        return [f"the checkpoint does not verify and load: {check.stdout}{check.stderr}"]
    if not saved <= int(held.group(1)) <= saved + 1:
        return [f"the checkpoint holds step {held.group(1)}, the last that was saved is {saved}"]
    return []


def details(ranks, size):
    lines = []
    for rank in range(size):
        process = ranks.processes[rank]
        state = process.poll()
        lines.append(f"  rank {rank}: {'still runs' if state is None else f'ended with {state}'}")
        for what in ("err", "out"):
            lines += [f"    {what}: {line}" for line in ranks.text(rank, what).splitlines()[-6:]]
    stuck = [one.pid for one in ranks.processes if one.poll() is None]
    return lines + (stacks(stuck[0]) if stuck else [])


def stacks(pid):
    """Where the threads of a process are, if there is a debugger."""
    debugger = shutil.which("cuda-gdb") or shutil.which("gdb")
    if debugger is None:
        return []
    try:
        found = subprocess.run([debugger, "-p", str(pid), "-batch", "-ex", "thread apply all bt 12"],
                               capture_output=True, text=True, timeout=40).stdout
    except subprocess.TimeoutExpired:
        return ["  (the debugger found no stacks in time)"]
    return [f"  {line[:160]}" for line in found.splitlines() if line.startswith(("#", "Thread"))][:80]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("job")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--timeout", type=int, default=10, help="seconds, of the job")
    options = parser.parse_args()
    probe = subprocess.run([options.job, "probe"], capture_output=True, text=True)
    if probe.returncode != 0:
        print(probe.stdout + probe.stderr, end="")
        sys.exit(probe.returncode)
    random.seed(1)
    all_good = True
    for mode in ("redistribute", "save"):
        good, failed, longest = 0, 0, 0.0
        for number in range(options.kills):
            with tempfile.TemporaryDirectory() as scratch:
                problems, seconds = kill_once(options, mode, number, pathlib.Path(scratch))
            longest = max(longest, seconds)
            good += not problems
            failed += bool(problems)
            if problems:
                print(f"kill {number} during {mode}:", *problems, sep="\n", flush=True)
            if failed == 3:
                print(f"3 failures: the other kills during {mode} are left out", flush=True)
                break
        print(f"kill -9 during {mode}: {good} of {options.kills}, the last survivor ended within {longest:.2f} s",
              flush=True)
        all_good = all_good and good == options.kills
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    main()
