#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""count.py [--note TEXT]... NAME=TESTLOG... NAME!STATUS=FILE...: adds up what Meson's test logs say, and scripts that
ended with STATUS and said what is in FILE. A doctest program counts with the test cases it ran, any other test as one.
Prints a line per build, then what was skipped, in part or as a whole, and why, with the notes; the sum is the last
line."""
import json
import os
import re
import sys


def why_skipped(test: dict) -> str:
    """What a test that was skipped says last, or after SKIP."""
    said = [line.strip() for line in (test.get("stdout", "") + "\n" + test.get("stderr", "")).splitlines() if line.strip()]
    marked = [line.removeprefix("SKIP:").strip() for line in said if line.startswith("SKIP:")]
    return (marked or said or ["it does not say why"])[-1]


def read(path: str, status: str) -> list[dict]:
    """The tests of a log; a script is one."""
    if not status:
        return [json.loads(line) for line in open(path)]
    result = {"0": "OK", "77": "SKIP"}.get(status, "FAIL")
    return [{"name": "", "result": result, "stdout": open(path, errors="replace").read()}]


def left_out(test: dict) -> list[str]:
    """The parts that a test which ran says it left out."""
    said = test.get("stdout", "").splitlines()
    return [line.strip() for line in said if re.match(r"[^:]+: left out, ", line)]


def main() -> int:
    totals = [0, 0, 0]
    reasons: dict[str, list[str]] = {}
    arguments = sys.argv[1:]
    notes = []
    while arguments and arguments[0] == "--note":
        notes.append(arguments[1])
        arguments = arguments[2:]
    for argument in arguments:
        name, path = argument.split("=", 1)
        name, _, status = name.partition("!")
        if not os.path.exists(path):
            print(f"{name}: did not build")
            totals[1] += 1
            continue
        passed = failed = skipped = 0
        for test in read(path, status):
            which = test["name"].split(" / ")[-1]
            good = test["result"] in ("OK", "EXPECTEDFAIL")
            cases = re.findall(r"test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed", test.get("stdout", ""))
            if test["result"] == "SKIP":
                skipped += 1
                reasons.setdefault(why_skipped(test), []).append(f"{name} {which}".strip())
            elif cases:
                passed += sum(int(c[0]) for c in cases)
                failed += sum(int(c[1]) for c in cases)
                failed += not good and not any(int(c[1]) for c in cases)
            else:
                passed += good
                failed += not good
            for part in left_out(test):
                reasons.setdefault(part, []).append(f"{name} {which}, in part")
        if passed + failed + (skipped if status else 0) == 0:
            print(f"{name}: no test ran")
            failed = 1
        print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped")
        totals = [a + b for a, b in zip(totals, (passed, failed, skipped))]
    print(f"{totals[2]} skipped{':' if reasons or notes else ''}")
    for reason, tests in reasons.items():
        print(f"  {', '.join(tests)}: {reason[:400]}")
    for note in notes:
        print(f"  {note}")
    print(f"{totals[0]} passed, {totals[1]} failed")
    return totals[1] > 0 or totals[0] == 0


sys.exit(main())
