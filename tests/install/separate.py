#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""separate.py COMPILER...: a program of two translation units with SHARDMESH_SEPARATE_COMPILATION links with the one that includes
shardmesh/src.hpp, and runs; without that it does not link: the two have none of what it compiles, and do not even read the
headers that only bodies need. src.hpp as a second header is refused."""
import os
import pathlib
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
CXX = sys.argv[1:]
FLAGS = ["-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include"]
FIRST = """
#include <cstdio>
#include <numeric>
#include <string>
#include <shardmesh/checkpoint.hpp>
#include <shardmesh/shardmesh.hpp>
namespace sm = shardmesh;
int count_shards();
int main(int, char** arguments) {
  sm::launch(sm::threads{2}, [arguments](auto& world) {
    auto const mesh = sm::device_mesh(world, {2});
    sm::Tensor<float> whole({6, 2});
    std::iota(whole.span().begin(), whole.span().end(), 0.0F);
    auto const x = sm::distribute(whole, mesh, sm::placements<sm::Shard<0>>);
    sm::StateDict saved;
    saved.insert({"model", "x"}, x);
    sm::save(world, arguments[1], saved);
    auto const y = sm::distribute(sm::Tensor<float>::zeros({6, 2}), mesh, sm::placements<sm::Shard<1>>);
    sm::StateDict loaded;
    loaded.insert({"model", "x"}, y);
    sm::load(world, arguments[1], loaded);
    bool equal = sm::checksum(world, loaded) == sm::checksum(world, saved);
    sm::CheckpointManager manager(world, std::string(arguments[1]) + "-run", {.last = 2});
    sm::AsyncSaver saver(world);
    manager.save(1, saved, 0.5);
    manager.save(saver, 2, saved).wait();
    manager.note_metric(2, 0.25);
    auto const best = manager.best();
    auto const z = sm::distribute(sm::Tensor<float>::zeros({6, 2}), mesh, sm::placements<sm::Shard<1>>);
    sm::StateDict again;
    again.insert({"model", "x"}, z);
    sm::load_from(world, [&] { return sm::DcpCatalog<>(best->path); }, again);
    equal = equal && best->step == 2 && sm::checksum(world, again) == sm::checksum(world, saved);
    if (world.rank() == 0) {
      std::printf("%s%s, %d shards\\n", sm::picture(x.layout()).c_str(), equal ? "equal" : "DIFFERENT", count_shards());
    }
  });
}
"""
SEPARATE = "-DSHARDMESH_SEPARATE_COMPILATION"


def run(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(one) for one in command], text=True, capture_output=True)


def good(*command: object) -> str:
    done = run(*command)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    first, source, late = folder / "first.cpp", folder / "source.cpp", folder / "late.cpp"
    first.write_text(FIRST)
    source.write_text("#include <shardmesh/src.hpp>\n")
    late.write_text("#include <shardmesh/core/text.hpp>\n#include <shardmesh/core/config.hpp>\n#include <shardmesh/src.hpp>\n")
    read = good(*CXX, *FLAGS, SEPARATE, "-M", first)
    if spared := [one for one in ("_bodies.hpp", "checkpoint/format/pickle", "checkpoint/format/zip", "checkpoint/detail/load_job") if one in read]:
        sys.exit(f"a unit that is compiled separately reads what only bodies need: {spared}")
    objects = [first.with_suffix(".o"), folder / "other.o"]
    good(*CXX, *FLAGS, SEPARATE, "-c", first, "-o", objects[0])
    good(*CXX, *FLAGS, SEPARATE, "-include", "shardmesh/checkpoint.hpp", "-c", TOP / "tests/install/other_unit.cpp", "-o", objects[1])
    good(*CXX, *FLAGS, "-c", source, "-o", source.with_suffix(".o"))
    end = ["-lz", "-pthread"]
    done = run(*CXX, *objects, "-o", folder / "lacking", *end)
    if done.returncode == 0 or "picture" not in done.stderr or "save" not in done.stderr:
        sys.exit(f"without src.hpp it must not link for want of picture and save: {done.returncode} {done.stderr[-2000:]}")
    good(*CXX, *objects, source.with_suffix(".o"), "-o", folder / "program", *end)
    said = good(folder / "program", folder / "checkpoint").splitlines()
    if said[-1] != "equal, 4 shards" or not any("rank 1" in line for line in said):
        sys.exit(f"the program says {said}")
    done = run(*CXX, *FLAGS, "-fsyntax-only", late)
    if done.returncode == 0 or "must be the first header of the library" not in done.stderr:
        sys.exit(f"src.hpp after another header: {done.stderr[:2000]}")
print("two translation units and src.hpp: compiled, linked, run")
