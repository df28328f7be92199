#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""coverage.py BUILD_DIRECTORY: which lines of the readers are run by the fuzz targets (their seeds, what earlier runs of run.py left in
BUILD_DIRECTORY/fuzz/corpus, --runs executions more of each) and by the tests of readers. Prints a line for each header, every line that is
not reached, and ends with 1 if fewer than --least percent are, or if unreached.txt, beside this file, does not explain a line or
explains one that is reached.

Needs clang++-19, llvm-profdata-19 and llvm-cov-19 (packages clang-19, libclang-rt-19-dev, llvm-19), doctest and nlohmann-json."""
import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import shutil
import subprocess
import sys

import run

TOP = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = TOP / "include/shardmesh"
# Whatever takes bytes that somebody else may have written. What only writes, or only plans, is left out.
READERS = [
    "checkpoint/format/budget.hpp", "checkpoint/format/byte_source.hpp", "checkpoint/format/bytes.hpp",
    "checkpoint/format/bytes_item.hpp", "checkpoint/format/detail/bytes_item_bodies.hpp",
    "checkpoint/format/chunk_check.hpp", "checkpoint/format/dcp_metadata.hpp", "checkpoint/format/dcp_metadata_reader.hpp",
    "checkpoint/format/dtype_names.hpp", "checkpoint/format/file_name.hpp", "checkpoint/format/lazy_view.hpp",
    "checkpoint/format/numpy_number.hpp", "checkpoint/format/pickle_[!w]*.hpp", "checkpoint/format/tensor_item.hpp",
    "checkpoint/format/tensor_pickle.hpp", "checkpoint/format/zip_reader.hpp", "checkpoint/dcp_catalog.hpp", "checkpoint/dcp_index.hpp",
    "checkpoint/detail/dcp_catalog_bodies.hpp", "checkpoint/detail/dcp_index_bodies.hpp", "checkpoint/detail/manifest_bodies.hpp",
    "checkpoint/manifest.hpp", "checkpoint/detail/metric_note.hpp", "checkpoint/detail/stored_item.hpp", "checkpoint/detail/stored_run.hpp",
    "checkpoint/storage/checked_run.hpp", "checkpoint/verify.hpp", "checkpoint/safetensors.hpp",
    "checkpoint/safetensors_blob.hpp", "checkpoint/safetensors_checks.hpp", "checkpoint/safetensors_dtypes.hpp",
    "checkpoint/safetensors_files.hpp", "checkpoint/safetensors_header.hpp", "checkpoint/safetensors_index.hpp",
    "checkpoint/safetensors_json.hpp", "checkpoint/safetensors_notes.hpp", "checkpoint/stream.hpp", "comm/detail/slurm.hpp",
    "comm/detail/greeting.hpp", "comm/detail/link.hpp", "comm/detail/offers.hpp",
]
TESTS = ["checkpoint/format_items.cpp", "checkpoint/format_metadata.cpp", "checkpoint/format_pickle.cpp", "checkpoint/format_zip.cpp",
         "checkpoint/hostile.cpp", "checkpoint/safetensors_header.cpp", "checkpoint/safetensors_files.cpp", "checkpoint/safetensors_checks.cpp",
         "checkpoint/stream.cpp", "checkpoint/bad_input.cpp", "checkpoint/verify.cpp", "checkpoint/dcp_files.cpp", "checkpoint/runs.cpp",
         "checkpoint/one_checkpoint.cpp", "checkpoint/save.cpp", "comm/sockets.cpp", "comm/strangers.cpp"]
COUNTED = ["-std=c++20", "-O0", "-fprofile-instr-generate", "-fcoverage-mapping", f"-I{TOP}/include"]


def is_reader(path: str) -> bool:
    return path.startswith(f"{INCLUDE}/") and any(fnmatch.fnmatch(path[len(f"{INCLUDE}/"):], pattern) for pattern in READERS)


def compile_all(folder: pathlib.Path, jobs: int) -> list[pathlib.Path]:
    """The fuzz targets and the tests."""
    ccache = ["ccache"] if shutil.which("ccache") else []
    compiler = [*ccache, "clang++-19", *COUNTED]
    fuzzer, tests = folder / "fuzz", folder / "tests"
    commands = [[*compiler, "-fsanitize=fuzzer-no-link", "-c", str(TOP / "tests/fuzz/fuzz.cpp"), "-o", f"{fuzzer}.o"]]
    objects = []
    for source in ["support/main.cpp", *TESTS]:
        objects.append(str(folder / (source.replace("/", "-") + ".o")))
        commands.append([*compiler, f'-DSHARDMESH_TEST_DATA="{TOP}/tests/data"', "-c", str(TOP / "tests" / source), "-o", objects[-1]])
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda command: subprocess.run(command, check=True), commands))
    subprocess.run(["clang++-19", *COUNTED, "-fsanitize=fuzzer", f"{fuzzer}.o", "-o", str(fuzzer), "-lz"], check=True)
    subprocess.run(["clang++-19", *COUNTED, *objects, "-o", str(tests), "-lz", "-pthread"], check=True)
    return [fuzzer, tests]


def record(folder: pathlib.Path, programs: list[pathlib.Path], corpus: pathlib.Path, runs: int, jobs: int, parts: list[str]) -> pathlib.Path:
    """Runs all, and merges what was counted."""
    fuzzer, tests = programs
    shutil.rmtree(folder / "raw", ignore_errors=True)
    (folder / "raw").mkdir()
    os.environ["LLVM_PROFILE_FILE"] = str(folder / "seeds.profraw")  # else it lies where the script was started
    run.write_seeds(fuzzer, folder / "seeds")

    def fuzz(target: str) -> None:
        found = corpus / target
        fresh = folder / "corpus" / target
        fresh.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "SHARDMESH_FUZZ_TARGET": target, "SHARDMESH_FUZZ_FILES": str(folder), "LLVM_PROFILE_FILE": f"{folder}/raw/{target}.profraw"}
        old = [str(found)] if found.is_dir() else []
        subprocess.run([str(fuzzer), f"-runs={runs}", "-seed=1", "-max_len=6000", str(fresh), str(folder / "seeds" / target), *old],
                       env=environment, check=True, capture_output=True)

    def test(_: str) -> None:
        subprocess.run([str(tests)], env={**os.environ, "LLVM_PROFILE_FILE": f"{folder}/raw/tests.profraw"}, check=True, capture_output=True)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(test, "")] if "tests" in parts else []
        waiting += [pool.submit(fuzz, target) for target in run.TARGETS] if "fuzz" in parts else []
        for each in waiting:
            each.result()
    merged = folder / "merged.profdata"
    subprocess.run(["llvm-profdata-19", "merge", "-sparse", *sorted(map(str, (folder / "raw").glob("*.profraw"))), "-o", str(merged)], check=True)
    return merged


def lines_of(programs: list[pathlib.Path], merged: pathlib.Path) -> dict[str, dict[int, int]]:
    """How often each line of each reader was run. A line of a template counts if any form of it ran."""
    export = subprocess.run(["llvm-cov-19", "export", "-format=lcov", f"-instr-profile={merged}", str(programs[0]), "-object", str(programs[1])],
                            check=True, capture_output=True, text=True).stdout
    counts: dict[str, dict[int, int]] = {}
    current = None
    for line in export.splitlines():
        if line.startswith("SF:"):
            path = os.path.realpath(line[3:])
            current = counts.setdefault(path, {}) if is_reader(path) else None
        elif line.startswith("DA:") and current is not None:
            number, count = map(int, line[3:].split(",")[:2])
            current[number] = max(current.get(number, 0), count)
    return counts


def explained() -> list[tuple[str, str, str]]:
    """Header, what stands in the first of some lines, and why no input gets there; "by chance: " where some runs do."""
    rows = []
    for line in (TOP / "tests/fuzz/unreached.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            header, text, why = line.split(" | ")
            rows.append((header, text, why))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=20000)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--least", type=float, default=98)
    parser.add_argument("--parts", default="fuzz,tests", help="only what one of them reaches")
    asked = parser.parse_args()
    folder = asked.build.resolve() / "coverage"
    folder.mkdir(parents=True, exist_ok=True)
    programs = compile_all(folder, asked.jobs)
    merged = record(folder, programs, asked.build.resolve() / "fuzz/corpus", asked.runs, asked.jobs, asked.parts.split(","))
    reasons = explained()
    used, unexplained, lines, total, reached = set(), 0, 0, 0, 0
    missing = []
    for path, counts in sorted(lines_of(programs, merged).items()):
        name = path[len(f"{INCLUDE}/"):]
        source = pathlib.Path(path).read_text().splitlines()
        ran = sum(count > 0 for count in counts.values())
        total, reached = total + len(counts), reached + ran
        print(f"{name:50} {ran:5} of {len(counts):5} lines {100 * ran / len(counts):6.1f} %")
        before, why = -1, None
        for number in sorted(line for line, count in counts.items() if count == 0):
            text = source[number - 1].strip()
            if number != before + 1:  # a run of lines has the reason of its first
                why = next((row for row in reasons if row[0] == name and row[1] == text), None)
                missing.append(f"{name}: {why[2] if why else 'NOT EXPLAINED'}")
                used.add(why)
            before = number
            unexplained += why is None
            lines += 1
            missing.append(f"    {number}: {text}")
    print("\n".join(["", *missing, ""]))
    stale = [row for row in reasons if row not in used and not row[2].startswith("by chance: ")]
    for row in stale:
        print(f"unreached.txt explains a line that is reached, or not there: {row[0]} | {row[1]}")
    percent = 100 * reached / total
    good = percent >= asked.least and unexplained == 0 and not stale
    print(f"{reached} of {total} lines of readers are reached: {percent:.2f} %, at least {asked.least:g} wanted; {lines} are not, {unexplained} of them without a "
          f"reason; {len(stale)} reasons without a line: {'ok' if good else 'NOT ENOUGH'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
