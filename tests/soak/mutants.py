#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""mutants.py [COMPILER] [NAME...]: shows that the tests of docs/reliability.md can fail.

Each mutant is a mistake in one header, made in a copy of include/: the test that is to find it must pass without it and fail
with it. Compiles one test file for each (20 to 60 s), two at a time. Exit 1 if a mutant is not found, or its line is not there any
more; 77 without what compiling needs."""
import concurrent.futures
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str  # of the mistake
    header: str
    line: str
    instead: str
    tests: str  # a file, or several with blanks between
    cases: str  # doctest's filter of test cases
    environment: tuple[str, ...] = ()


MUTANTS = [
    Mutant("a save does not look whether another one holds the lock", "checkpoint/storage/save_lock.hpp",
           "if (code == EWOULDBLOCK) {", "if (code == EWOULDBLOCK && path_.empty()) {",
           "checkpoint/two_savers.cpp", "a save beside one that is going on is refused*"),
    Mutant("a save removes the old checkpoint before the new one has its name", "checkpoint/detail/commit.hpp",
           "  if (!PosixStorage::exchange(temporary, directory)) {",
           "  PosixStorage::remove_all(directory);\n  PosixStorage::rename(temporary, directory);\n  if (false) {",
           "checkpoint/crash.cpp", "SIGKILL at random moments of a save by threads", ("SHARDMESH_KILLS=300",)),
    Mutant("what another job has taken away is published", "checkpoint/detail/commit.hpp",
           "  if (found != written) {", "  if (found > written) {",
           "checkpoint/two_savers.cpp", "what another job has taken away is not published"),
    Mutant("a load opens each file by its path", "checkpoint/storage/directory.hpp",
           "return File::open_at(descriptor_, name, path_of(name));", "return File::open(path_of(name));",
           "checkpoint/one_checkpoint.cpp", "a checkpoint that is replaced after it was opened*"),
    Mutant("ranks do not compare which checkpoint they read", "checkpoint/detail/load_job.hpp",
           "catalog.identity(), catalog.describe()}", "std::string(), catalog.describe()}",
           "checkpoint/one_checkpoint.cpp", "ranks that load from the directories of two steps*"),
    Mutant("items of another save are taken", "checkpoint/detail/stored_item.hpp",
           "if (expected && *expected != crc) {", "if (expected && *expected != crc && key.empty()) {",
           "checkpoint/one_checkpoint.cpp", "load sees *"),
    Mutant("checksums of records are not compared", "checkpoint/format/zip_reader.hpp",
           "if (entry.crc != 0 && crc != entry.crc) {", "if (entry.crc != 0 && crc != entry.crc && entry.name.empty()) {",
           "checkpoint/every_bit.cpp", "a directory of DCP*"),
    Mutant("a load asks for memory after the last agreement", "checkpoint/detail/load_from_bodies.hpp",
           '  ready->apply();', '  std::vector<std::byte> const late(1 + dict.size());\n  ready->apply();',
           "checkpoint/failing_memory.cpp", "*"),
    Mutant("a name twice in a header of safetensors is taken", "checkpoint/safetensors_header.hpp",
           "      refuse_twice(tensor != nullptr ? *tensor : *metadata);", "",
           "checkpoint/safetensors_header.cpp", "*"),
    Mutant("readers have no budget", "checkpoint/format/budget.hpp",
           "bool const allowed = bytes <= left_;", "bool const allowed = bytes <= left_ || bytes > 0;",
           "checkpoint/reader_costs.cpp", "*"),
    Mutant("arguments of saves and loads are not compared", "checkpoint/detail/arguments.hpp",
           "    if (all[rank] != all[0]) {", "    if (all[rank] != all[0] && all[0].empty()) {",
           "checkpoint/arguments.cpp", "*"),
    Mutant("ranks that are in one call with other arguments are not told", "comm/call.hpp",
           "    if (fingerprints[rank] != fingerprints[0]) {", "    if (fingerprints[rank] != fingerprints[0] && rank > 64) {",
           "tensor/disagreements.cpp", "*"),
    Mutant("a save in the background that has failed is not told by the next one", "checkpoint/async_saver.hpp",
           "    join();\n    refuse_if_failed();", "    join();",
           "checkpoint/failed_background.cpp", "*"),
    Mutant("a rank without a thread for its background save leaves the others alone", "checkpoint/async_saver.hpp",
           "      detail::agree_on_failure(comm_, operation, error);", "      if (error) {\n        std::rethrow_exception(error);\n      }",
           "checkpoint/failed_background.cpp", "a rank that can start no thread*"),
    Mutant("a rank that works is taken for one that hangs", "comm/detail/presence.hpp",
           "[[nodiscard]] bool is_working() const noexcept { return place_ == Place::working; }",
           "[[nodiscard]] bool is_working() const noexcept { return false; }",
           "comm/working.cpp", "*"),
    Mutant("windows of shared memory have one half", "comm/detail/shared_windows.hpp",
           "    return windows_[rank_].data() + meeting % 2 * half;", "    return windows_[rank_].data() + 0 * meeting;",
           "comm/shared_windows.cpp", "a window's bytes stay*"),
    Mutant("survivors go on from the state of another step", "",
           "static_cast<std::size_t>(first % 2)", "static_cast<std::size_t>((first + 1) % 2)",
           "shrink.cpp", "threads"),
]


def build(compiler: list[str], include: pathlib.Path, tests: str, main: pathlib.Path, program: pathlib.Path) -> str:
    files = [str(TOP / "tests" / one) for one in tests.split()]
    done = subprocess.run([*compiler, "-std=c++20", "-O0", f"-I{include}", f"-I{TOP / 'tests'}", "-D_FILE_OFFSET_BITS=64",
                           f'-DSHARDMESH_TEST_DATA="{TOP / "tests/data"}"', *files, str(main), "-o", str(program), "-lz", "-pthread"],
                          capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def run(program: pathlib.Path, mutant: Mutant, scratch: pathlib.Path) -> int:
    """The exit status; a test that does not end has failed as well."""
    environment = os.environ | dict(one.split("=", 1) for one in mutant.environment) | {"TMPDIR": str(scratch)}
    command = [str(program), mutant.cases] if mutant.tests == "shrink.cpp" else [str(program), f"--test-case={mutant.cases}"]
    try:
        return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240).returncode
    except subprocess.TimeoutExpired:
        return -1


def with_mistake(mutant: Mutant, scratch: pathlib.Path, compiler: list[str], main: pathlib.Path) -> str:
    """What is wrong; empty if the mutant was found."""
    example = mutant.tests == "shrink.cpp"
    programs = {}
    for mistake in (False, True):
        place = scratch / ("with" if mistake else "without")
        include = place / "include"
        shutil.copytree(TOP / "include", include)
        shutil.copytree(TOP / "examples", place / "examples")
        path = place / "examples/shrink.cpp" if example else include / "shardmesh" / mutant.header
        text = path.read_text()
        if text.count(mutant.line) != 1:
            return f"its line is there {text.count(mutant.line)} times: {mutant.line.strip()}"
        if mistake:
            path.write_text(text.replace(mutant.line, mutant.instead))
        program = place / "program"
        if example:
            done = subprocess.run([*compiler, "-std=c++20", "-O0", f"-I{include}", f'-DEXAMPLE_DATA="{TOP / "examples/data"}"', str(path), "-o",
                                   str(program), "-lz", "-pthread"], capture_output=True, text=True)
            error = done.stderr if done.returncode else ""
        else:
            error = build(compiler, include, mutant.tests, main, program)
        if error:
            return f"does not compile {'with' if mistake else 'without'} it:\n{error[:2000]}"
        programs[mistake] = program
    if run(programs[False], mutant, scratch) != 0:
        return "the test fails without it"
    return "NOT FOUND" if run(programs[True], mutant, scratch) == 0 else ""


def main() -> int:
    compiler = sys.argv[1].split() if len(sys.argv) > 1 else [shutil.which("clang++-19") or "c++"]
    wanted = sys.argv[2:]
    chosen = [one for one in MUTANTS if not wanted or any(name in one.name for name in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        doctest = scratch / "main.o"
        done = subprocess.run([*compiler, "-std=c++20", "-O0", f"-I{TOP / 'include'}", f"-I{TOP / 'tests'}", "-c", str(TOP / "tests/support/main.cpp"), "-o",
                               str(doctest)], capture_output=True, text=True)
        if done.returncode:
            print(f"SKIP: {' '.join(compiler)} does not compile doctest's main: {done.stderr[:300]}")
            return 77
        wrong = 0

        def one(number: int) -> str:
            place = scratch / str(number)
            place.mkdir()
            try:
                return with_mistake(chosen[number], place, compiler, doctest)
            finally:
                shutil.rmtree(place, ignore_errors=True)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for mutant, problem in zip(chosen, pool.map(one, range(len(chosen)))):
                wrong += bool(problem)
                print(f"{mutant.name}: {problem or 'found by ' + mutant.tests}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} mistakes were found")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
