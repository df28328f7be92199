#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""consume.py pkg-config|cmake|meson BUILD_DIR: installs the library into an empty folder and builds and
runs a consumer of two translation units against it, the way named. Exit 77: the tool is missing."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = ["consumer.cpp", "other_unit.cpp"]


def run(*command: object, **options) -> str:
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def need(tool: str) -> str:
    if shutil.which(tool) is None:
        print(f"SKIP: no {tool} here")
        sys.exit(77)
    return tool


def install(build: str, prefix: pathlib.Path) -> None:
    run("meson", "install", "-C", build, "--no-rebuild", "--destdir", prefix)


def installed(prefix: pathlib.Path, name: str) -> pathlib.Path:
    found = list(prefix.rglob(name))
    if len(found) != 1:
        sys.exit(f"meson install put {name} at {len(found)} places: {found}")
    return found[0]


def with_pkg_config(build: str, work: pathlib.Path) -> pathlib.Path:
    need("pkg-config")
    install(build, work / "root")
    file = installed(work / "root", "shardmesh.pc")
    environment = os.environ | {"PKG_CONFIG_PATH": str(file.parent), "PKG_CONFIG_SYSROOT_DIR": str(work / "root")}
    flags = run("pkg-config", "--cflags", "shardmesh", env=environment).split()
    # zlib's own flags lie outside the folder that was installed to.
    libs = run("pkg-config", "--libs", "shardmesh", env=os.environ | {"PKG_CONFIG_PATH": str(file.parent)}).split()
    sources = [HERE / name for name in SOURCES]
    run(os.environ.get("CXX", "c++"), "-std=c++20", *flags, *sources, "-o", work / "consumer", *libs)
    return work / "consumer"


def with_cmake(build: str, work: pathlib.Path) -> pathlib.Path:
    need("cmake")
    install(build, work / "root")
    package = installed(work / "root", "shardmeshConfig.cmake").parent
    run("cmake", "-S", HERE, "-B", work / "out", f"-Dshardmesh_DIR={package}")
    run("cmake", "--build", work / "out")
    return work / "out" / "consumer"


def with_meson(_: str, work: pathlib.Path) -> pathlib.Path:
    for name in SOURCES:
        shutil.copy(HERE / name, work)
    shutil.copy(HERE / "meson.build.consumer", work / "meson.build")
    (work / "subprojects").mkdir()
    os.symlink(HERE.parents[1], work / "subprojects" / "shardmesh")
    run("meson", "setup", work / "out", work)
    run("ninja", "-C", work / "out")
    return work / "out" / "consumer"


with tempfile.TemporaryDirectory() as folder:
    way = {"pkg-config": with_pkg_config, "cmake": with_cmake, "meson": with_meson}[sys.argv[1]]
    output = run(way(sys.argv[2], pathlib.Path(folder)))
    if output != "consumer: ok, 4 shards\n":
        sys.exit(f"the consumer printed {output!r}")
    print(output, end="")
