#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""consume.py WAY BUILD_DIR: builds and runs a consumer of two translation units and a shared library, the way named:
one of WAYS below. BUILD_DIR is a build directory of the library, which is installed into an empty folder where the way
needs it. Exit 77: the tool is missing."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
if shutil.which("ninja") and not shutil.which("make"):
    os.environ.setdefault("CMAKE_GENERATOR", "Ninja")  # what Meson has brought

TOP = HERE.parents[1]
DOWNSTREAM = TOP / "tests/downstream"
COMPILER = os.environ.get("CXX", "c++").split()


def run(*command: object, **options) -> str:
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def skip(why: str) -> None:
    print(f"SKIP: {why}")
    sys.exit(77)


def need(tool: str) -> str:
    return shutil.which(tool) or skip(f"no {tool} here")


def version() -> str:
    """Of the headers; all that names a version names the same."""
    found = {}
    for file, pattern in {
        "include/shardmesh/core/config.hpp": r'VERSION_STRING "(.*)"',
        "meson.build": r"version: '(.*)'",
        "tests/downstream/vcpkg/shardmesh/vcpkg.json": r'"version": "(.*)"',
        "tests/downstream/shardmesh.wrap": r"directory = shardmesh-(.*)",
    }.items():
        found[file] = re.search(pattern, (TOP / file).read_text()).group(1)
    if len(set(found.values())) != 1:
        sys.exit(f"the versions differ: {found}")
    return found["meson.build"]


def archive(work: pathlib.Path) -> pathlib.Path:
    """What a release would have, as far as it is built: packed from the working tree."""
    path = work / f"shardmesh-{version()}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for name in ("CMakeLists.txt", "LICENSE", "include", "meson.build", "meson_options.txt"):
            file.add(TOP / name, f"shardmesh-{version()}/{name}")
    return path


def install(build: str, prefix: pathlib.Path) -> None:
    need("meson")
    run("meson", "install", "-C", build, "--no-rebuild", "--destdir", prefix)


def installed(prefix: pathlib.Path, name: str) -> pathlib.Path:
    found = list(prefix.rglob(name))
    if len(found) != 1:
        sys.exit(f"the installation put {name} at {len(found)} places: {found}")
    return found[0]


def compile_by_hand(work: pathlib.Path, flags: list[str], libs: list[str]) -> pathlib.Path:
    common = [*COMPILER, "-std=c++20", "-O0", *flags]
    run(*common, "-fPIC", "-shared", "-fvisibility=hidden", HERE / "library.cpp", "-o", work / "libengine.so", *libs)
    run(*common, HERE / "consumer.cpp", HERE / "other_unit.cpp", "-o", work / "consumer", f"-L{work}", f"-Wl,-rpath,{work}", "-lengine", *libs)
    return work / "consumer"


def with_cmake(work: pathlib.Path, *options: object) -> pathlib.Path:
    need("cmake")
    # Neither is looked for: that takes longest, and the consumer needs none.
    run("cmake", "-S", HERE, "-B", work / "out", "-DCMAKE_BUILD_TYPE=", "-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_CUDAToolkit=ON", *options)
    run("cmake", "--build", work / "out", "--parallel", "2")
    return work / "out" / "consumer"


def plain(_: str, work: pathlib.Path) -> pathlib.Path:
    return compile_by_hand(work, [f"-I{TOP}/include"], ["-lz", "-pthread"])


def has_isal() -> bool:
    return shutil.which("pkg-config") is not None and subprocess.run(["pkg-config", "--exists", "libisal"], check=False).returncode == 0


def pkg_config(build: str, work: pathlib.Path, name: str = "shardmesh") -> pathlib.Path:
    need("pkg-config")
    install(build, work / "root")
    file = installed(work / "root", f"{name}.pc")
    environment = os.environ | {"PKG_CONFIG_PATH": str(file.parent), "PKG_CONFIG_SYSROOT_DIR": str(work / "root")}
    flags = run("pkg-config", "--cflags", name, env=environment).split()
    # The flags of zlib and ISA-L lie outside the folder that was installed to.
    libs = run("pkg-config", "--libs", name, env=os.environ | {"PKG_CONFIG_PATH": str(file.parent)}).split()
    return compile_by_hand(work, flags, libs)


def find_package(build: str, work: pathlib.Path) -> pathlib.Path:
    need("cmake")
    install(build, work / "root")
    package = installed(work / "root", "shardmeshConfig.cmake").parent
    return with_cmake(work, "-DWAY=find_package", f"-Dshardmesh_DIR={package}")


def pkg_config_isal(build: str, work: pathlib.Path) -> pathlib.Path:
    return pkg_config(build, work, "shardmesh-isal") if has_isal() else skip("no ISA-L here")


def find_package_isal(build: str, work: pathlib.Path) -> pathlib.Path:
    need("cmake")
    install(build, work / "root")
    package = installed(work / "root", "shardmeshConfig.cmake").parent
    if not has_isal():
        skip("no ISA-L here")
    return with_cmake(work, "-DWAY=find_package_isal", f"-Dshardmesh_DIR={package}")


def cmake_install(build: str, work: pathlib.Path) -> pathlib.Path:
    """CMake installs what Meson does, file by file; pkg-config says the same of both."""
    need("cmake")
    need("pkg-config")
    install(build, work / "meson")
    prefix = work / "prefix"
    run("cmake", "-S", TOP, "-B", work / "library", f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON")
    run("cmake", "--install", work / "library")
    top = installed(work / "meson", "shardmesh.pc").parents[2]

    def files(root: pathlib.Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent.name != "bin"}

    if differ := files(prefix) ^ files(top):
        sys.exit(f"installed by one of CMake and Meson alone: {differ}")
    said = []
    for path in (prefix, top):
        query = ["pkg-config", "--define-prefix", "--cflags", "--libs", "--modversion", "shardmesh"]
        said.append(run(*query, env=os.environ | {"PKG_CONFIG_PATH": f"{path}/share/pkgconfig"}).replace(str(path), ""))
    if said[0].split() != said[1].split():
        sys.exit(f"pkg-config says of CMake's installation {said[0]!r}, of Meson's {said[1]!r}")
    return with_cmake(work, "-DWAY=find_package", f"-DCMAKE_PREFIX_PATH={prefix}")


def add_subdirectory(_: str, work: pathlib.Path) -> pathlib.Path:
    return with_cmake(work, "-DWAY=add_subdirectory", f"-DSHARDMESH={TOP}")


def fetch_content(_: str, work: pathlib.Path) -> pathlib.Path:
    return with_cmake(work, "-DWAY=FetchContent", f"-DSHARDMESH={archive(work)}")


def meson_wrap(_: str, work: pathlib.Path) -> pathlib.Path:
    need("meson")
    for name in ("consumer.cpp", "library.cpp", "other_unit.cpp"):
        shutil.copy(HERE / name, work)
    shutil.copy(HERE / "consumer.meson.build", work / "meson.build")
    packed = archive(work)
    wrap = (DOWNSTREAM / "shardmesh.wrap").read_text()
    wrap = wrap.replace("ARCHIVE", packed.as_uri()).replace("SHA256", hashlib.sha256(packed.read_bytes()).hexdigest())
    (work / "subprojects").mkdir()
    (work / "subprojects/shardmesh.wrap").write_text(wrap)
    # Also where one is installed: the archive is what is tried.
    run("meson", "setup", work / "out", work, "-Doptimization=0", "-Ddebug=false", "--force-fallback-for=shardmesh")
    run("ninja", "-C", work / "out")
    return work / "out" / "consumer"


def conan(_: str, work: pathlib.Path) -> pathlib.Path:
    kept = pathlib.Path.home() / ".cache/shardmesh/conan/bin/conan"  # conan.sh puts it there
    tool = shutil.which("conan") or (kept if kept.exists() else skip("no conan here"))
    need("cmake")
    environment = os.environ | {"CONAN_HOME": str(work / "conan")}

    def run_conan(*arguments: object) -> str:
        return run(tool, *arguments, env=environment, cwd=work)

    run_conan("profile", "detect")
    asked = ["--no-remote", "-s", "compiler.cppstd=20"]
    run_conan("create", DOWNSTREAM / "conan/system_zlib", *asked)
    created = json.loads(run_conan("create", DOWNSTREAM / "conan", "--format=json", *asked))
    references = [node["ref"].split("#")[0] for node in created["graph"]["nodes"].values()]
    if f"shardmesh/{version()}" not in references:
        sys.exit(f"conan made {references}")
    run_conan("install", f"--requires=shardmesh/{version()}", "-g", "CMakeDeps", "-g", "CMakeToolchain", "-of", work / "deps", *asked)
    return with_cmake(work, "-DWAY=find_package", f"-DCMAKE_TOOLCHAIN_FILE={work}/deps/conan_toolchain.cmake",
                      "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0")


def vcpkg(_: str, work: pathlib.Path) -> pathlib.Path:
    need("cmake")
    ports = DOWNSTREAM / "vcpkg"
    if tool := shutil.which("vcpkg"):
        run(tool, "install", "shardmesh", f"--overlay-ports={ports}", f"--x-install-root={work}/installed", "--classic")
        return with_cmake(work, "-DWAY=find_package", f"-DCMAKE_PREFIX_PATH={next((work / 'installed').glob('*-*'))}")
    print("vcpkg: left out, no vcpkg here: the port was run by stand-ins for its functions")
    about = json.loads((ports / "shardmesh/vcpkg.json").read_text())
    helpers = {"vcpkg_cmake": "vcpkg-cmake", "vcpkg_cmake_config": "vcpkg-cmake-config"}
    wanted = {d if isinstance(d, str) else d["name"] for d in about["dependencies"]}
    if not wanted >= {*helpers.values(), "zlib"}:
        sys.exit(f"the port does not ask for all it uses: {wanted}")
    run("cmake", f"-DWORK={work}", "-P", ports / "stand_in.cmake")
    for name in ("share/shardmesh/copyright", "share/shardmesh/usage", "share/shardmesh/shardmeshConfig.cmake"):
        if not (work / "packages" / name).is_file():
            sys.exit(f"the port installs no {name}")
    return with_cmake(work, "-DWAY=find_package", f"-DCMAKE_PREFIX_PATH={work}/packages")


WAYS = {way.__name__.replace("_", "-"): way for way in (plain, pkg_config, pkg_config_isal, find_package, find_package_isal, cmake_install, add_subdirectory, fetch_content, meson_wrap, conan, vcpkg)}

with tempfile.TemporaryDirectory() as folder:
    output = run(WAYS[sys.argv[1]](sys.argv[2], pathlib.Path(folder)))
    # Meson's option is "auto"; the other ways take ISA-L where they are asked to.
    by_isal = sys.argv[1].endswith("-isal") or (sys.argv[1] == "meson-wrap" and has_isal())
    if output != "consumer: ok, 4 shards" + (", CRC-32 by ISA-L" if by_isal else "") + "\n":
        sys.exit(f"the consumer printed {output!r}")
    print(output, end="")
