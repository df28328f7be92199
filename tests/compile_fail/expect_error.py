#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""expect_error.py SOURCE -- COMPILER ARGS...: the source must compile as it stands, and with
-DEXPECT_ERROR fail with text that matches each of its `expected-error {{regex}}` lines and none of its
`unexpected-error {{regex}}` lines."""
import pathlib
import re
import subprocess
import sys

source, command = sys.argv[1], sys.argv[sys.argv.index("--") + 1:]
lines = pathlib.Path(source).read_text()
wanted = re.findall(r"// expected-error \{\{(.*?)\}\}", lines)
unwanted = re.findall(r"// unexpected-error \{\{(.*?)\}\}", lines)


def run(*more):
    return subprocess.run([*command, *more, source], capture_output=True, text=True)


control = run()
if control.returncode:
    sys.exit("the control case must compile:\n" + control.stderr)
broken = run("-DEXPECT_ERROR")
text = " ".join(broken.stderr.split())
missing = [w for w in wanted if not re.search(w, text)]
if not broken.returncode or not wanted or missing:
    sys.exit(f"expected {wanted}, got:\n{broken.stderr}")
misleading = [w for w in unwanted if re.search(w, text)]
if misleading:
    sys.exit(f"not expected {misleading}, got:\n{broken.stderr}")
