#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""configure.py DIR [-DOPTION=VALUE...]: DIR is a build directory of the project here with these options, for the
compiler that CXX names and what is installed now, afterwards. One that is there is looked over anew (what Meson once did not find
may have been installed since), keeps what it has compiled, and keeps its other options. Prints what Meson said if it
fails."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys


def real(compiler: str) -> str:
    return os.path.realpath(shutil.which(compiler) or compiler)


def has_other_compiler(build: pathlib.Path) -> bool:
    """Meson never changes the compiler of a build directory."""
    words = shlex.split(os.environ.get("CXX") or "c++")
    wanted = next((word for word in words if pathlib.Path(word).name != "ccache"), words[0])
    try:
        commands = json.loads((build / "compile_commands.json").read_text())
    except (OSError, ValueError):
        return True
    for command in commands:
        if command["file"].endswith(".cpp"):
            return real(wanted) not in map(real, shlex.split(command["command"])[:2])  # the first may be ccache
    return False


def meson(*arguments: object) -> str | None:
    """What Meson said, if it failed."""
    done = subprocess.run(["meson", *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return None if done.returncode == 0 else done.stdout


def languages(build: pathlib.Path) -> set[str]:
    return set(re.findall(r"^rule (\w+)_COMPILER\b", (build / "build.ninja").read_text(), re.M))


def configure(build: pathlib.Path, options: list[str]) -> str | None:
    if not (build / "build.ninja").exists():
        return meson("setup", build, *options)
    if has_other_compiler(build):
        print(f"{build.name}/ is for another compiler, and starts anew")
        return meson("setup", "--wipe", build, *options)
    before = languages(build)
    if meson("configure", build, "--clearcache") is None and meson("setup", "--reconfigure", build, *options) is None \
            and languages(build) <= before:
        return None
    # Of another Meson, or broken; or a compiler has come (nvcc), which would go without the project's default options.
    return meson("setup", "--wipe", build, *options)


build = pathlib.Path(sys.argv[1]).absolute()
if build.exists() and not os.access(build, os.W_OK):
    sys.exit(f"{build} belongs to another user (one command as root, one not?): remove it, or go on as that user")
if (said := configure(build, sys.argv[2:])) is not None:
    sys.exit(f"{said}\n{build.name}/ could not be set up: meson says why above")
