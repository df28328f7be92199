#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""count_test.py: count.py adds up, says why what was skipped was skipped, and takes no silence for success."""
import json
import pathlib
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parent / "count.py"
GOOD = {"name": "host / core", "result": "OK", "stdout": "[doctest] test cases:  7 |  7 passed | 0 failed | 1 skipped\n"}
BAD = {"name": "host / mesh", "result": "FAIL", "stdout": "[doctest] test cases:  5 |  3 passed | 2 failed | 0 skipped\n"}
CRASHED = {"name": "host / comm", "result": "FAIL", "stdout": "half a line"}
SKIPPED = {"name": "mpi", "result": "SKIP", "stdout": "one\nSKIP: no mpirun here\n"}
SILENT = {"name": "gpu", "result": "SKIP", "stdout": "", "stderr": "no usable GPU\n"}
PARTLY = {"name": "examples / job", "result": "OK", "stdout": "srun: left out, Slurm's daemons want root\n"}


def check(what: str, logs: dict[str, list[dict] | str | None], notes: list[str], status: int, *lines: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [word for note in notes for word in ("--note", note)]
        for number, (name, tests) in enumerate(logs.items()):
            path = pathlib.Path(folder, str(number))
            if tests is not None:
                path.write_text(tests if isinstance(tests, str) else "".join(json.dumps(test) + "\n" for test in tests))
            arguments.append(f"{name}={path}")
        done = subprocess.run([sys.executable, SCRIPT, *arguments], text=True, capture_output=True)
    said = done.stdout.splitlines()
    good = done.returncode == status and said == list(lines)
    print(f"{'ok' if good else 'FAILED'}: {what}")
    if not good:
        sys.exit(f"exit {done.returncode}, expected {status}\n{done.stdout}{done.stderr}\nexpected:\n" + "\n".join(lines))


check("all is well", {"g++": [GOOD, PARTLY]}, [], 0,
      "g++: 8 passed, 0 failed, 0 skipped", "0 skipped:",
      "  g++ job, in part: srun: left out, Slurm's daemons want root", "8 passed, 0 failed")
check("reasons stand once, with all that they hold for", {"g++": [GOOD, SKIPPED, SILENT], "asan": [GOOD, SKIPPED]}, ["PyTorch: --quick"], 0,
      "g++: 7 passed, 0 failed, 2 skipped", "asan: 7 passed, 0 failed, 1 skipped", "3 skipped:",
      "  g++ mpi, asan mpi: no mpirun here", "  g++ gpu: no usable GPU", "  PyTorch: --quick", "14 passed, 0 failed")
check("failures", {"g++": [GOOD, BAD, CRASHED]}, [], 1, "g++: 10 passed, 3 failed, 0 skipped", "0 skipped", "10 passed, 3 failed")
check("a build that is missing is a failure", {"g++": [GOOD], "asan": None}, [], 1,
      "g++: 7 passed, 0 failed, 0 skipped", "asan: did not build", "0 skipped", "7 passed, 1 failed")
check("so is one that ran no test", {"g++": [GOOD], "asan": [SKIPPED]}, [], 1,
      "g++: 7 passed, 0 failed, 0 skipped", "asan: no test ran", "asan: 0 passed, 1 failed, 1 skipped", "1 skipped:",
      "  asan mpi: no mpirun here", "7 passed, 1 failed")
check("scripts count as one", {"g++": [GOOD], "bare!0": "all of it\n", "slow!77": "SKIP: no root\n", "bad!1": "no\n"}, [], 1,
      "g++: 7 passed, 0 failed, 0 skipped", "bare: 1 passed, 0 failed, 0 skipped", "slow: 0 passed, 0 failed, 1 skipped",
      "bad: 0 passed, 1 failed, 0 skipped", "1 skipped:", "  slow: no root", "8 passed, 1 failed")
