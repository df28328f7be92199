#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""torch_env_test.py: torch_env.sh with packages that stand in for PyTorch and what it needs, and no network: a
PyTorch that loads by itself is installed alone; one that misses a library gets its dependencies; where it cannot be
had, nothing stays behind and the reason is said. Exit 77: no venv here."""
import base64
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "2.15.0"
LIBRARY = "libcublasLt.so.*[0-9] not found in the system path"


def wheel(folder: pathlib.Path, name: str, version: str, files: dict[str, str], needs: tuple[str, ...] = ()) -> None:
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {need}\n" for need in needs)
    files = files | {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}",
                     f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = ""
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")


def stand_ins(folder: pathlib.Path, torch_needs_library: bool, library_is_there: bool) -> None:
    script = (HERE / "torch_env.sh").read_text()
    named = set(re.findall(r"\b(nvidia-[a-z0-9-]+|numpy|packaging|typing_extensions|sympy|mpmath|networkx|jinja2|markupsafe|fsspec|filelock)\b",
                           script))
    for name in sorted(named):
        wheel(folder, name.replace("_", "-"), "2.30.7" if "nccl" in name else "1.0", {})
    wheel(folder, "setuptools", "81.0", {})
    wheel(folder, "safetensors", "1.0", {"safetensors/__init__.py": "", "safetensors/torch.py": ""})
    first = f"try:\n    import cublas\nexcept ImportError:\n    raise OSError({LIBRARY!r})\n" if torch_needs_library else ""
    wheel(folder, "torch", VERSION, {"torch/__init__.py": first, "torch/distributed/__init__.py": "",
                                     "torch/distributed/checkpoint.py": ""}, ("cublas",))
    if library_is_there:
        wheel(folder, "cublas", "1.0", {"cublas.py": ""})


def install(packages: pathlib.Path, cache: pathlib.Path) -> subprocess.CompletedProcess:
    # No index, no settings of this machine: the stand-ins alone.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(packages), "PIP_CONFIG_FILE": os.devnull, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(["bash", HERE / "torch_env.sh"], env=environment, text=True, capture_output=True)


def expect(what: str, good: bool, seen: object) -> None:
    print(f"{'ok' if good else 'FAILED'}: {what}", flush=True)
    if not good:
        sys.exit(str(seen))


def has(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


def check(folder: pathlib.Path, torch_needs_library: bool, library_is_there: bool) -> None:
    packages, cache = folder / "packages", folder / "cache"
    packages.mkdir(parents=True)
    stand_ins(packages, torch_needs_library, library_is_there)
    done = install(packages, cache)
    home = cache / "shardmesh" / f"torch-{VERSION}"
    log = pathlib.Path(f"{home}.log").read_text()
    if torch_needs_library and not library_is_there:
        expect("what cannot be installed fails", done.returncode == 1 and done.stdout == "", (done, log))
        expect("the reason is said", "cannot be installed here" in done.stderr and "cublas" in done.stderr, done.stderr)
        expect("nothing stays behind", not home.exists() and log != "", list(home.parent.iterdir()))
        return
    expect("its Python is printed", done.returncode == 0 and done.stdout.strip() == str(home / "bin/python"), (done, log))
    expect("PyTorch loads", has(done.stdout.strip(), "torch.distributed.checkpoint"), log)
    expect("dependencies come along where they are missed, and only there", has(done.stdout.strip(), "cublas") == torch_needs_library, log)
    again = install(folder / "nothing", cache)
    expect("what is complete is used again", again.returncode == 0 and again.stdout == done.stdout, again)


if subprocess.run([sys.executable, "-m", "ensurepip", "--version"], capture_output=True).returncode != 0:
    print("SKIP: no venv here (python3-venv)")
    sys.exit(77)
with tempfile.TemporaryDirectory() as top:
    for number, case in enumerate([(False, True), (True, True), (True, False)]):
        check(pathlib.Path(top, str(number)), *case)
