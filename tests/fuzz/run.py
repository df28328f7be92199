#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Fuzzes every reader with libFuzzer, ASan and UBSan. Seeds come out of tests/data. A mutant that reads a byte too many
has to be found first.

run.py BUILD_DIRECTORY         builds the program and fuzzes each target for SHARDMESH_FUZZ_SECONDS (8), or for
                               SHARDMESH_FUZZ_RUNS executions. What is found new stays in BUILD_DIRECTORY/fuzz/corpus for
                               the next time. SHARDMESH_FUZZ_JOBS (2): targets at a time; SHARDMESH_FUZZ_TARGETS: only
                               these, with commas between. Exit 77: no clang with libFuzzer here.
run.py --pack FOLDER           puts what another Linux needs into FOLDER: a program that wants glibc alone, the seeds and
                               this script.
FOLDER/run.py --runs N         there: at least N executions of each target, by --jobs processes (all cores), each target
                               cut into as many as its speed asks for. --seconds S: no process begins or goes on after
                               these. One line a target; what was found lies in FOLDER/found.

Exit 1: something was found, or the mutant was not, or a target had fewer than N executions."""
import argparse
import concurrent.futures
import io
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib

TOP = pathlib.Path(__file__).resolve().parents[2]


# The targets, and the executions a second of one core (--pack, 2026-11-27), which say how many processes each gets.
SPEED = {"pickle": 19000, "names": 25000, "dcp_metadata": 9000, "zip": 40000, "tensor": 40000, "tensor_pickle": 15000, "plain_value": 13000, "numpy_number": 13000,
         "safetensors_header": 15000, "safetensors_file": 5500, "hub_index": 30000, "notes": 25000, "manifest": 60000, "lines": 130000, "stream": 15000,
         "directory": 3500, "launcher": 150000, "frames": 12000, "offers": 20000}
TARGETS = list(SPEED)
CHECKS = "detect_leaks=1:allocator_may_return_null=0"


def build(program: pathlib.Path, options: list[str]) -> bool:
    """False where there is no compiler for it."""
    for name in ["clang++-19", "clang++", "clang++-16", "clang++-14"]:
        compiler = shutil.which(name)
        if compiler is None:
            continue
        probe = subprocess.run([compiler, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-std=c++20", "-", "-o", str(program) + "-probe"],
                               input='#include <cstddef>\n#include <cstdint>\nextern "C" int LLVMFuzzerTestOneInput(std::uint8_t const*, std::size_t) { return 0; }\n',
                               text=True, capture_output=True)
        if probe.returncode != 0:
            continue
        subprocess.run([compiler, "-std=c++20", "-gline-tables-only", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
                        f"-I{TOP}/include", str(TOP / "tests/fuzz/fuzz.cpp"), "-o", str(program), *options], check=True)
        return True
    return False


def items(data: bytes) -> list[bytes]:
    """The archives of which a data file consists, as far as they can be told apart."""
    found, start = [], 0
    while (end := data.find(b"PK\x05\x06", start)) >= 0:
        found.append(data[start:end + 22])
        start = end + 22
    return found


def seeds() -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {target: [] for target in TARGETS}
    data = TOP / "tests/data"
    for path in sorted(data.rglob(".metadata")):
        content = path.read_bytes()
        if len(content) < 30_000:
            found["dcp_metadata"].append(content)
            found["pickle"].append(b"\0" + content)
            found["names"].append(content)
    for path in sorted(data.rglob("*.distcp")):
        for item in items(path.read_bytes())[:8]:
            if len(item) > 20_000 or not item.startswith(b"PK"):
                continue
            found["zip"].append(item)
            found["tensor"].append(item)
            try:
                with zipfile.ZipFile(io.BytesIO(item)) as archive:
                    pickled = archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))
            except (zipfile.BadZipFile, StopIteration):
                continue
            found["pickle"] += [b"\1" + pickled, b"\2" + pickled]
            found["plain_value"].append(pickled)
            found["tensor_pickle"].append(b"\x18" + pickled)
            found["names"].append(pickled)
    for path in sorted(data.rglob("*.safetensors")):
        content = path.read_bytes()
        if len(content) < 6_000:
            found["safetensors_file"].append(content)
        header = content[8:8 + int.from_bytes(content[:8], "little")]
        if len(header) < 20_000:
            found["safetensors_header"].append(header)
    for path in sorted(data.rglob("*.index.json")):
        found["hub_index"].append(path.read_bytes())
    found["hub_index"].append(b'{"metadata":{"total_size":8},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}')
    found["notes"] += [b'{"a":{"saved_offsets":[0,4]},"b":{"saved_offsets":[]}}', b'{"a":[2,3],"b":[]}']
    found["numpy_number"] += [b"f8<\0\0\0\0\0\0\xc3\xb0?", b"i4<\1\0\0\0", b"u2>\0\1", b"b1|\1", b"f2<\0<", b"f4<\0\0\xc0?"]
    found["numpy_number"] += [f"{kind}{size}{'<' if size > 1 else '|'}".encode() + bytes([1] * size) for kind in "iu" for size in (1, 2, 4, 8)]
    lines = b"%08x 3 a\n" % zlib.crc32(b"abc")
    found["manifest"] += [lines + b"%08x %d .shardmesh\n" % (zlib.crc32(lines), len(lines)), b"00000000 0 .shardmesh\n"]
    return found


def write_seeds(program: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for target, inputs in seeds().items():
        place = folder / target
        place.mkdir(parents=True)
        for number, content in enumerate(sorted(set(inputs))):
            (place / str(number)).write_bytes(content)
    subprocess.run([str(program)], env={**os.environ, "SHARDMESH_FUZZ_SEEDS": str(folder)}, check=True)


def fuzz(program: pathlib.Path, target: str, folder: pathlib.Path, options: list[str], checks: str = CHECKS, mutant: bool = False) -> tuple[int, int, str]:
    """Exit status, executions and what was said."""
    name = "mutant" if mutant else target
    corpus, artifacts = folder / "corpus" / name, folder / "found" / name
    for path in [corpus, artifacts]:
        path.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SHARDMESH_FUZZ_TARGET": target, "ASAN_OPTIONS": checks}
    if mutant:
        environment["SHARDMESH_FUZZ_MUTANT"] = "1"
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as files:
        environment["SHARDMESH_FUZZ_FILES"] = files
        done = subprocess.run([str(program), "-max_len=20000", *options, "-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=256", "-print_final_stats=1",
                               f"-artifact_prefix={artifacts}/", str(corpus), str(folder / "seeds" / target)],
                              env=environment, capture_output=True, text=True, errors="replace")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if executions is None:  # a process that was ended says no total
        executions = re.search(r".*^#(\d+)\t", done.stderr, re.DOTALL | re.MULTILINE)
    return done.returncode, int(executions.group(1)) if executions else 0, done.stderr


def mutant_is_found(program: pathlib.Path, folder: pathlib.Path) -> bool:
    status, _, said = fuzz(program, "manifest", folder, ["-runs=100000", "-max_total_time=20"], mutant=True)
    if status == 0 or "AddressSanitizer" not in said:
        print("the mutant was not found: the targets prove nothing\n" + said[-2000:])
        return False
    return True


def leaks_can_be_seen(program: pathlib.Path, folder: pathlib.Path) -> bool:
    """The sanitizer looks for leaks by means that some containers forbid."""
    _, _, said = fuzz(program, "launcher", folder, ["-runs=10"])
    return "LeakSanitizer has encountered a fatal error" not in said


def pack(folder: pathlib.Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    linked = ["-O2", "-static-libstdc++", "-static-libgcc", "-Wl,-Bstatic", "-lz", "-Wl,-Bdynamic", "-Wl,--compress-debug-sections=zlib"]
    if not build(folder / "fuzz", linked):
        print("no clang with libFuzzer here (clang-19, libclang-rt-19-dev)")
        return 1
    (folder / "fuzz-probe").unlink()
    write_seeds(folder / "fuzz", folder / "seeds")
    shutil.copy(__file__, folder / "run.py")
    return 0


class Tally:
    """What the processes of one target say together."""

    def __init__(self) -> None:
        self.executions = self.found = self.before = self.after = self.features = 0
        self.seconds = 0.0
        self.said = ""
        self.lock = threading.Lock()

    def add(self, status: int, executions: int, said: str, seconds: float) -> None:
        covered = [(int(edges), int(features)) for edges, features in re.findall(r"^#\d+\t.* cov: (\d+) ft: (\d+)", said, re.MULTILINE)]
        with self.lock:
            self.executions += executions
            self.seconds += seconds
            if covered:
                self.before = min(self.before or covered[0][0], covered[0][0])
                self.after = max(self.after, covered[-1][0])
                self.features = max(self.features, covered[-1][1])
            if status != 0:
                self.found += 1
                self.said = self.said or said[-6000:]


def spread(program: pathlib.Path, folder: pathlib.Path, targets: list[str], runs: int, jobs: int, seconds: float) -> int:
    """Cuts the executions of each target into parts of about the same time, three for each job, and runs the slow targets' first."""
    start = time.monotonic()
    usual = CHECKS
    if not leaks_can_be_seen(program, folder):
        print("leaks cannot be seen here: they are not looked for")
        usual += ":detect_leaks=0"
    cost = {target: runs / SPEED[target] for target in targets}
    part = max(sum(cost.values()) / (3 * jobs), 1.0)
    parts = [(target, number, math.ceil(runs / count)) for target in targets for count in [max(1, round(cost[target] / part))] for number in range(count)]
    parts.sort(key=lambda each: (each[1], -cost[each[0]]))  # every target begins at once
    tally = {target: Tally() for target in targets}

    def one(each: tuple[str, int, int]) -> None:
        target, number, share = each
        while (left := seconds - (time.monotonic() - start)) >= 1:
            begun = time.monotonic()
            # The first process of a target looks for everything; the rest are faster without the stack of each allocation and frames kept
            # after their return.
            checks = usual if number == 0 else usual + ":malloc_context_size=1:detect_stack_use_after_return=0:quarantine_size_mb=32"
            status, executions, said = fuzz(program, target, folder, [f"-runs={share}", f"-max_total_time={int(left)}", f"-seed={number + 1}", "-max_len=6000"], checks)
            tally[target].add(status, executions, said, time.monotonic() - begun)
            share -= executions
            if status == 0 or share <= 0 or executions == 0 or tally[target].found > 20:
                return

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, parts))
    print(f"{'target':20} {'executions':>12} {'a second':>9} {'edges: seeds':>12} {'now':>6} {'features':>9} {'found':>6} {'seconds of one core':>20}")
    good = True
    for target, told in tally.items():
        good = good and told.found == 0 and told.executions >= runs
        print(f"{target:20} {told.executions:12} {told.executions / max(told.seconds, 0.001):9.0f} {told.before:12} {told.after:6} {told.features:9} {told.found:6} "
              f"{told.seconds:20.0f}")
        if told.said:
            print(told.said)
    print(f"{'all':20} {sum(told.executions for told in tally.values()):12} executions by {jobs} jobs in {time.monotonic() - start:.0f} s: {'ok' if good else 'NOT DONE, OR FOUND SOMETHING'}")
    return 0 if good else 1


def short(folder: pathlib.Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "fuzz"
    if not build(program, ["-O1", "-lz"]):
        print("SKIP: no clang with libFuzzer here (clang-19, libclang-rt-19-dev)")
        return 77
    write_seeds(program, folder / "seeds")
    runs = os.environ.get("SHARDMESH_FUZZ_RUNS")
    limit = [f"-runs={runs}"] if runs else [f"-max_total_time={os.environ.get('SHARDMESH_FUZZ_SECONDS', '8')}"]
    if not mutant_is_found(program, folder):
        return 1
    targets = os.environ.get("SHARDMESH_FUZZ_TARGETS", ",".join(TARGETS)).split(",")
    failed, total = False, 0
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("SHARDMESH_FUZZ_JOBS", "2"))) as pool:
        results = pool.map(lambda target: fuzz(program, target, folder, limit), targets)
        for target, (status, executions, said) in zip(targets, results):
            total += executions
            print(f"{target:20} {executions:10} executions, {'ok' if status == 0 else 'FAILED'}", flush=True)
            if status != 0:
                failed = True
                print(said[-6000:])
    print(f"{'all':20} {total:10} executions")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=pathlib.Path)
    parser.add_argument("--pack", type=pathlib.Path)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--targets", default=",".join(TARGETS))
    asked = parser.parse_args()
    if asked.pack:
        return pack(asked.pack.resolve())
    if asked.runs:
        folder = pathlib.Path(__file__).resolve().parent
        if not (folder / "fuzz").exists():
            parser.error("--runs is for a folder that --pack made")
        if not mutant_is_found(folder / "fuzz", folder):
            return 1
        return spread(folder / "fuzz", folder, asked.targets.split(","), asked.runs, asked.jobs, asked.seconds)
    if asked.build is None:
        parser.error("a build directory, --pack or --runs")
    return short(asked.build.resolve() / "fuzz")


if __name__ == "__main__":
    sys.exit(main())
