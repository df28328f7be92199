#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""install.py BUILD_DIR TOOL: `meson setup` and `meson install` compile nothing and leave the tool out, as it was
not built; where it was (TOOL, in BUILD_DIR), it is installed and runs."""
import os
import pathlib
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD, TOOL = map(pathlib.Path, sys.argv[1:])


def run(*command: object, **options) -> str:
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(what: str, good: bool, seen: object = "") -> None:
    if not good:
        sys.exit(f"{what}: {seen}")


def in_bin(root: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in root.rglob("*") if path.parent.name == "bin"]


def install_fresh(work: pathlib.Path) -> None:
    # Neither CUDA nor MPI: looking for them takes longest, and they change none of what is installed.
    run("meson", "setup", work / "build", TOP, "-Dcuda=disabled", "-Dmpi=disabled")
    run("meson", "install", "-C", work / "build", "--destdir", work / "root")
    built = [path for path in (work / "build").rglob("*") if path.suffix in (".o", ".a", ".so") and "meson-private" not in path.parts]
    expect("meson install compiled", not built, built)
    expect("there is something in bin", not in_bin(work / "root"), in_bin(work / "root"))
    for name in ("shardmesh.hpp", "shardmesh.pc", "shardmesh-isal.pc", "shardmeshConfig.cmake", "shardmeshConfigVersion.cmake"):
        expect(f"{name} was installed", len(list((work / "root").rglob(name))) == 1)


def install_built(work: pathlib.Path) -> None:
    for options in ((), ("--tags", "bin")):
        root = work / f"root-{len(options)}"
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root, *options)
        expect("the tool alone is in bin", [path.name for path in in_bin(root)] == [TOOL.name], in_bin(root))
        said = run(in_bin(root)[0], "layout", "--shape", "4", "--mesh", "2", "--placements", "S0", "--json")
        expect("the installed tool runs", '"ranks"' in said, said)
        run("meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", root, *options)  # over the one that is there
        expect("the tool is executable", os.access(in_bin(root)[0], os.X_OK))


with tempfile.TemporaryDirectory() as folder:
    install_fresh(pathlib.Path(folder, "fresh"))
    install_built(pathlib.Path(folder, "built"))
print("installing compiles nothing; the tool is installed where it was built")
