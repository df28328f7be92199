#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""guide.py COMPILER...: every program in README.md and docs/guide compiles as it is printed, and runs."""
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[1]
failed = 0
programs = 0
for page in [TOP / "README.md", *sorted((TOP / "docs/guide").glob("*.md"))]:
    for number, text in enumerate(re.findall(r"^```cpp\n(.*?)^```", page.read_text(), re.S | re.M), 1):
        name = f"{page.relative_to(TOP)}, program {number}"
        programs += 1
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "program.cpp")
            source.write_text(text)
            flags = ["-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include"]
            built = subprocess.run([*sys.argv[1:], *flags, source, "-o", source.with_suffix(""), "-lz", "-pthread"], capture_output=True, text=True)
            done = built if built.returncode else subprocess.run([source.with_suffix("")], cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            failed += 1
            print(f"{name}: exit status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        else:
            print(f"{name}: ok")
if failed or programs < 10:
    sys.exit(f"{failed} of {programs} programs failed")
