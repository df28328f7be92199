#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""run.py BUILD_DIRECTORY: fuzzes every reader with libFuzzer, ASan and UBSan. Seeds come out of tests/data; what
is found new stays in BUILD_DIRECTORY/fuzz/corpus for the next run. A mutant that reads a byte too many has to be
found first.

SHARDMESH_FUZZ_SECONDS (8): for each target; SHARDMESH_FUZZ_RUNS: so many executions of each target instead.
SHARDMESH_FUZZ_JOBS (2): targets at a time; SHARDMESH_FUZZ_TARGETS: only these, with commas between.
Exit 77: no clang with libFuzzer here."""
import concurrent.futures
import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
import zlib

TOP = pathlib.Path(__file__).resolve().parents[2]
TARGETS = ["pickle", "names", "dcp_metadata", "zip", "tensor", "plain_value", "numpy_number",
           "safetensors_header", "hub_index", "notes", "manifest"]


def build(folder: pathlib.Path) -> pathlib.Path | None:
    """The program, or None where there is no compiler for it."""
    program = folder / "fuzz"
    for name in ["clang++-19", "clang++", "clang++-16", "clang++-14"]:
        compiler = shutil.which(name)
        if compiler is None:
            continue
        probe = subprocess.run([compiler, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-std=c++20", "-", "-o", str(folder / "probe")],
                               input='#include <cstddef>\n#include <cstdint>\nextern "C" int LLVMFuzzerTestOneInput(std::uint8_t const*, std::size_t) { return 0; }\n',
                               text=True, capture_output=True)
        if probe.returncode != 0:
            continue
        subprocess.run([compiler, "-std=c++20", "-O1", "-gline-tables-only", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all",
                        f"-I{TOP}/include", str(TOP / "tests/fuzz/fuzz.cpp"), "-o", str(program), "-lz"], check=True)
        return program
    return None


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
            found["names"].append(pickled)
    for path in sorted(data.rglob("*.safetensors")):
        content = path.read_bytes()
        header = content[8:8 + int.from_bytes(content[:8], "little")]
        if len(header) < 20_000:
            found["safetensors_header"].append(header)
    for path in sorted(data.rglob("*.index.json")):
        found["hub_index"].append(path.read_bytes())
    found["hub_index"].append(b'{"metadata":{"total_size":8},"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}')
    found["notes"] += [b'{"a":{"saved_offsets":[0,4]},"b":{"saved_offsets":[]}}', b'{"a":[2,3],"b":[]}']
    found["numpy_number"] += [b"f8<\0\0\0\0\0\0\xc3\xb0?", b"i4<\1\0\0\0", b"u2>\0\1", b"b1|\1", b"f2<\0<"]
    lines = b"%08x 3 a\n" % zlib.crc32(b"abc")
    found["manifest"] += [lines + b"%08x %d .shardmesh\n" % (zlib.crc32(lines), len(lines)), b"00000000 0 .shardmesh\n"]
    return found


def fuzz(program: pathlib.Path, target: str, folder: pathlib.Path, limit: list[str], mutant: bool = False) -> tuple[int, int, str]:
    """Exit status, executions and what was said."""
    name = "mutant" if mutant else target
    corpus, artifacts = folder / "corpus" / name, folder / "found" / name
    for path in [corpus, artifacts]:
        path.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "SHARDMESH_FUZZ_TARGET": target, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=0"}
    if mutant:
        environment["SHARDMESH_FUZZ_MUTANT"] = "1"
    done = subprocess.run([str(program), *limit, "-max_len=20000", "-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=256", "-print_final_stats=1",
                           f"-artifact_prefix={artifacts}/", str(corpus), str(folder / "seeds" / target)],
                          env=environment, capture_output=True, text=True, errors="replace")
    executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    return done.returncode, int(executions.group(1)) if executions else 0, done.stderr


def main() -> int:
    folder = pathlib.Path(sys.argv[1]).resolve() / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    program = build(folder)
    if program is None:
        print("SKIP: no clang with libFuzzer here (clang-19, libclang-rt-19-dev)")
        return 77
    for target, inputs in seeds().items():
        place = folder / "seeds" / target
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for number, content in enumerate(inputs):
            (place / str(number)).write_bytes(content)
    runs = os.environ.get("SHARDMESH_FUZZ_RUNS")
    limit = [f"-runs={runs}"] if runs else [f"-max_total_time={os.environ.get('SHARDMESH_FUZZ_SECONDS', '8')}"]
    status, _, said = fuzz(program, "manifest", folder, ["-runs=100000", "-max_total_time=20"], mutant=True)
    if status == 0 or "AddressSanitizer" not in said:
        print("the mutant was not found: the targets prove nothing\n" + said[-2000:])
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


if __name__ == "__main__":
    sys.exit(main())
