#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""two_hosts.py MPI TWO_HOSTS HSDP_RESUME TOOL: two hosts on one machine: network namespaces with an address each,
joined by a cable. The main job with its resharding loads runs across both, by MPI (openmpi, or none) and by
environment{}; then the cable is cut in the middle of a save, and of redistributes. Every rank must end with an error
in time, and the checkpoint before must verify (TOOL, or none) and load. Exit 77: no right to make namespaces."""
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import mpirun

MPI, PROGRAM, JOB, TOOL = sys.argv[1:]
TIMEOUT = 5.0  # of a rank that waits
GRACE = 60.0  # until its process has ended, on a busy machine; what TCP does by itself takes a quarter of an hour
TAG = f"sm{os.getpid()}"
HOSTS = {f"{TAG}a": "10.213.7.1", f"{TAG}b": "10.213.7.2"}
PORT = "29600"
SECRET = secrets.token_hex(16)


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *arguments], text=True, capture_output=True, check=check)


def connect_hosts() -> None:
    a, b = HOSTS
    for host in HOSTS:
        ip("netns", "add", host)
        ip("-n", host, "link", "set", "lo", "up")
    ip("-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
    for host, address in HOSTS.items():
        ip("-n", host, "addr", "add", f"{address}/24", "dev", "cable")
        ip("-n", host, "link", "set", "cable", "up")


def cut(down: bool) -> None:
    ip("-n", list(HOSTS)[1], "link", "set", "cable", "down" if down else "up")


def clear_hosts() -> None:
    """Ends whatever still runs on the hosts."""
    for host in HOSTS:
        for pid in ip("netns", "pids", host, check=False).stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


def remove_hosts() -> None:
    clear_hosts()
    for host in HOSTS:
        ip("netns", "del", host, check=False)


def on(host: str, *command: str) -> list[str]:
    """A command that sees the network of a host, and its name."""
    return ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', host, *command]


class Ranks:
    """The processes of 4 ranks, two on each host."""

    def __init__(self, engine: str, log: pathlib.Path, *program: str) -> None:
        self.log = log
        a, b = HOSTS
        if engine == "mpi":
            agent = log.with_suffix(".agent")  # mpirun's way to another host
            agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {b} unshare --uts sh -c "hostname {b} && $*"\n')
            agent.chmod(0o755)
            settings = {"plm_rsh_agent": str(agent), "pml": "ob1", "btl": "tcp,self", "btl_tcp_if_include": "10.213.7.0/24",
                        "oob_tcp_if_include": "10.213.7.0/24",
                        "orte_abort_on_non_zero_status": "0"}  # ranks end by themselves, not by mpirun's hand
            mca = [word for key, value in settings.items() for word in ("--mca", key, value)]
            hosts = ",".join(f"{address}:2" for address in HOSTS.values())
            command = on(a, *mpirun.starter("openmpi"), *mca, "--host", hosts, "-n", "4", *program)
            self.started = [self.start(command, mpirun.environment("openmpi") | {"TMPDIR": str(log.parent)})]
        else:
            self.started = []
            for rank in range(4):
                variables = {"RANK": rank, "WORLD_SIZE": 4, "LOCAL_RANK": rank % 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": PORT,
                             "MASTER_ADDR": HOSTS[a], "SHARDMESH_JOB_SECRET": SECRET}
                environment = os.environ | {key: str(value) for key, value in variables.items()}
                self.started.append(self.start(on([a, b][rank // 2], *program), environment))

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
        with self.log.open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self, seconds: float) -> list[int]:
        return [one.wait(timeout=seconds) for one in self.started]

    def running(self) -> list[str]:
        """The process numbers of ranks that have not ended."""
        pids = [pid for host in HOSTS for pid in ip("netns", "pids", host).stdout.split()]
        return [pid for pid in pids if PROGRAM in program_of(pid)]


def program_of(pid: str) -> str:
    try:
        return os.path.realpath(f"/proc/{pid}/exe")
    except OSError:
        return ""


def expect(what: str, good: bool, seen: object = "") -> None:
    print(f"{'ok' if good else 'FAILED'}: {what}", flush=True)
    if not good:
        sys.exit(str(seen))


def wait_until(condition, seconds: float) -> float:
    """@returns the time it took, at most `seconds`."""
    start = time.monotonic()
    while not condition() and time.monotonic() - start < seconds:
        time.sleep(0.02)
    return time.monotonic() - start


def main_job(engine: str, folder: pathlib.Path) -> None:
    log = folder / "job.log"
    ranks = Ranks(engine, log, JOB, "--engine", engine, "--steps", "5", "--out", str(folder / "job"))
    status = ranks.wait(120)
    text = log.read_text()
    expect(f"{engine}: the main job across two hosts, four meshes, bit-equal",
           not any(status) and "Every resumed state is bit-equal" in text and text.count("bit-equal  ") == 3, text)


def finished(folder: pathlib.Path) -> list[pathlib.Path]:
    """Checkpoints by age."""
    names = {int(match[1]): match[0] for path in folder.iterdir() if (match := re.fullmatch(r"step-(\d+)", path.name))}
    return [folder / names[step] for step in sorted(names)]


def cut_in(deed: str, engine: str, folder: pathlib.Path) -> None:
    log = folder / "log"
    ranks = Ranks(engine, log, PROGRAM, engine, deed, str(folder), str(int(TIMEOUT * 1000)))
    under_way = (lambda: len(finished(folder)) >= 3) if deed == "save" else (folder / "ready").exists
    wait_until(under_way, 60)
    expect(f"{engine}: a {deed} is under way", under_way() and len(ranks.running()) == 4, log.read_text())
    cut(True)
    seconds = wait_until(lambda: not ranks.running(), TIMEOUT + GRACE + 10)
    errors = {rank: folder / f"rank-{rank}.txt" for rank in range(4)}
    texts = [f"rank {rank} in {path.read_text().strip() if path.exists() else 'no error'}" for rank, path in errors.items()]
    print(f"    {seconds:.1f} s after the cut:", *texts, sep="\n    ", flush=True)
    expect(f"{engine}: every rank has ended {TIMEOUT + GRACE} s after the cut", seconds <= TIMEOUT + GRACE, log.read_text())
    words = ("did not arrive", "did not answer", "did not take", "failed", "has ended")
    expect(f"{engine}: every rank says in the middle of what it missed which rank",
           all(re.match(rf"rank \d in {deed} \d+: ", one) and any(word in one for word in words) for one in texts), log.read_text())
    if engine == "mpi":
        ended = all(one.poll() is not None for one in ranks.started)
        print(f"    mpirun {'has ended' if ended else 'still waits for its daemon on the other host, and is ended here'}")
    clear_hosts()
    cut(False)
    last = finished(folder)[-1]
    if TOOL != "none":
        done = subprocess.run([TOOL, "verify", str(last)], text=True, capture_output=True)
        expect(f"{engine}: {last.name} verifies", done.returncode == 0, done.stdout + done.stderr)
    done = subprocess.run([PROGRAM, "threads", "check", str(last), "0"], text=True, capture_output=True)
    expect(f"{engine}: {last.name} loads on three ranks with the values that were saved", done.returncode == 0, done.stderr)


if shutil.which("ip") is None or shutil.which("unshare") is None:
    mpirun.skip("no ip or unshare here (iproute2, util-linux)")
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the hosts are removed even then
try:
    try:
        connect_hosts()
    except subprocess.CalledProcessError as error:
        mpirun.skip(f"no network namespaces here: {' '.join(error.cmd)}: {error.stderr.strip()}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:
        engines = ["environment"]
        if MPI == "openmpi" and mpirun.is_there(MPI):
            engines.append("mpi")
        else:
            print("mpi: left out, the tests are built without Open MPI")
        for engine in engines:
            for number, part in enumerate([main_job, lambda *a: cut_in("save", *a), lambda *a: cut_in("redistribute", *a)]):
                folder = pathlib.Path(top, f"{engine}-{number}")
                folder.mkdir()
                part(engine, folder)
finally:
    remove_hosts()
