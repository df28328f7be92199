#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""count.py NAME=TESTLOG...: adds up what Meson's test logs say. A doctest program counts with the test
cases it ran, any other test as one. Prints a line per build and the sum last."""
import json
import os
import re
import sys

totals = [0, 0, 0]
for argument in sys.argv[1:]:
    name, path = argument.split("=", 1)
    passed = failed = skipped = 0
    if not os.path.exists(path):
        print(f"{name}: did not build")
        totals[1] += 1
        continue
    for line in open(path):
        test = json.loads(line)
        cases = re.findall(r"test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed", test.get("stdout", ""))
        if test["result"] == "SKIP":
            skipped += 1
        elif cases:
            passed += sum(int(c[0]) for c in cases)
            failed += sum(int(c[1]) for c in cases)
            failed += test["result"] not in ("OK", "EXPECTEDFAIL") and not any(int(c[1]) for c in cases)
        else:
            good = test["result"] in ("OK", "EXPECTEDFAIL")
            passed += good
            failed += not good
    print(f"{name}: {passed} passed, {failed} failed, {skipped} skipped")
    totals = [a + b for a, b in zip(totals, (passed, failed, skipped))]
print(f"{totals[2]} skipped: see the logs for the reasons")
print(f"{totals[0]} passed, {totals[1]} failed")
sys.exit(totals[1] > 0 or totals[0] == 0)
