#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""bare_machine_test.py: what bare_machine.sh takes for the whole work of tests/run.sh. Its function is tried on outputs, without a machine."""
import pathlib
import re
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "bare_machine.sh"
FUNCTIONS = "".join(re.findall(r"^(?:interop_is_told|complete)\(\) \{\n.*?^\}\n", SCRIPT.read_text(), re.M | re.S))
PASSED = " 41/132 shardmesh:interop / interop                    OK              33.21s\n"
OTHER = " 42/132 shardmesh:interop / interop-dlpack             OK               3.21s\n"
SKIPPED = "  g++ interop, g++ interop-training: torch_env: PyTorch 2.15.0 cannot be installed here; /x.log ends with: no space\n"
UNKNOWN = "  g++ interop, g++ interop-training: No module named 'torch'; bash tests/interop/torch_env.sh installs PyTorch\n"
END = "g++: 9999 passed, 0 failed, 2 skipped\n9999 passed, 0 failed\n"


def check(what: str, good: bool, said: str, command: str = "bash tests/run.sh", leaves: str = "") -> None:
    with tempfile.TemporaryDirectory() as tree:
        cache = pathlib.Path(tree, "home/someone/.cache/shardmesh")
        cache.mkdir(parents=True)
        (cache / "torch-2.15.0.log").write_text("why")
        if leaves:
            (cache / leaves).mkdir()
        log = pathlib.Path(tree, "said.log")
        log.write_text(said)
        done = subprocess.run(["bash", "-c", f'top={SCRIPT.parents[1]} tree={tree} home=/home/someone; declare -A passed=()\n{FUNCTIONS}\ncomplete "{log}" "{command}"'],
                              text=True, capture_output=True)
    print(f"{'ok' if (done.returncode == 0) == good else 'FAILED'}: {what}")
    if (done.returncode == 0) != good or done.stderr:
        sys.exit(f"exit {done.returncode}\n{done.stdout}{done.stderr}")


check("PyTorch has read what was saved", True, PASSED + OTHER + END)
check("it has, and its environment stays for the next time", True, PASSED + END, leaves="torch-2.15.0")
check("nothing is said of the suite interop", False, END)
check("only another test of the suite ran", False, OTHER + END)
check("PyTorch cannot be installed, and nothing of it is left", True, SKIPPED + END)
check("PyTorch cannot be installed, and half of it is left", False, SKIPPED + END, leaves="torch-2.15.0")
check("a skip for another reason", False, UNKNOWN + END)
check("--quick has no PyTorch", True, END, "bash tests/run.sh --quick")
check("fewer tests than the rooms have", False, PASSED + END.replace("9999 passed, 0 failed, 2", "7 passed, 0 failed, 2"))
check("something failed", False, PASSED + END.replace("9999 passed, 0 failed\n", "9999 passed, 1 failed\n"))
