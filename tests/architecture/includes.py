#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Holds the include table of docs/architecture.md.

No room includes a room above it, another room's detail/, or a third-party header outside its door; headers
stay short; every header has a test that names it. `--self-test` shows that each rule can fail."""
import pathlib
import re
import sys
import tempfile

# What each room may include besides core and itself.
ALLOWED = {
    "core": set(),
    "layout": set(),
    "plan": {"layout"},
    "memory": set(),
    "comm": {"memory"},
    "mesh": {"layout", "plan", "comm", "memory"},
    "tensor": {"layout", "plan", "memory", "comm", "mesh"},
    "state": {"layout", "plan", "memory", "comm", "mesh", "tensor"},
    "optim": {"layout", "memory", "mesh", "tensor", "state"},
    "fsdp": {"layout", "plan", "memory", "comm", "mesh", "tensor", "state", "optim"},
    "checkpoint": {"layout", "memory", "comm", "mesh", "tensor", "state"},
    # Doors for those who want them: no other room includes one.
    "interop": {"layout", "plan", "memory", "comm", "mesh", "tensor", "state", "optim", "fsdp"},
}
PURE = {"checkpoint/format": set()}  # parts of a room with a stricter rule
# Third-party headers, by the places that may include them.
DOORS = {
    r"cuda.*|thrust/.*|cub/.*": ("memory/cuda/", "comm/nccl/", "comm/threads_on_devices.hpp",
                                    "interop/cuda_types.hpp", "interop/thrust.hpp"),
    r"(ATen|c10|torch)/.*": ("interop/torch.hpp",),
    r"nccl\.h": ("comm/nccl/",),
    r"mpi\.h": ("comm/mpi/",),
    r"nvtx3/.*": ("core/range.hpp",),
    r"zlib\.h": ("checkpoint/format/crc32.hpp",),
    r"isa-l/.*": ("checkpoint/format/crc32.hpp",),
    r"nlohmann/.*": ("checkpoint/safetensors", "checkpoint/detail/json", "checkpoint/load_any.hpp"),
}
POSIX = re.compile(r"(sys|net|netinet|arpa)/.*\.h|(netdb|poll|unistd|fcntl|dirent)\.h")
POSIX_DOORS = ("comm/", "checkpoint/storage/", "memory/huge_pages.hpp", "memory/page_advice.hpp")
MOST_LINES = 450


def problems_in(include: pathlib.Path, tests: pathlib.Path) -> list[str]:
    found = []
    named = "\n".join(p.read_text() for p in tests.rglob("*") if p.suffix in (".cpp", ".hpp", ".cu"))
    for path in sorted((include / "shardmesh").rglob("*.[hc]*")):
        name = str(path.relative_to(include / "shardmesh"))
        lines = path.read_text().splitlines()
        if len(lines) > MOST_LINES:
            found.append(f"{name}: {len(lines)} lines, at most {MOST_LINES}; split it by idea")
        if "/" not in name:
            continue  # an umbrella
        room = name.split("/")[0]
        base = path.stem
        if "detail/" not in name and not re.search(rf"\b{base}\b", named):
            found.append(f"{name}: no test names it")
        for line in lines:
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quote, target = match.groups()
            if quote == '"':
                found.append(f'{name}: "{target}" must be included as <shardmesh/...>')
            elif target.startswith("shardmesh/"):
                found += own_include(name, room, target[len("shardmesh/"):])
            else:
                found += foreign_include(name, target)
    return found


def own_include(name: str, room: str, target: str) -> list[str]:
    other = target.split("/")[0]
    if "/" not in target:
        return [f"{name}: includes the umbrella {target}"]
    if other != room and "detail/" in target and not (other == "tensor" and room in ("checkpoint",)):
        return [f"{name}: includes {target}, which is private to {other}"]
    for part, allowed in PURE.items():
        if name.startswith(part) and other != "core" and other not in allowed and not target.startswith(part):
            return [f"{name}: {part} is pure, it may not include {target}"]
    if other not in ALLOWED.get(room, set()) | {"core", room}:
        return [f"{name}: the room {room} may not include {target}"]
    return []


def foreign_include(name: str, target: str) -> list[str]:
    for pattern, doors in DOORS.items():
        if re.fullmatch(pattern, target):
            return [] if name.startswith(doors) else [f"{name}: <{target}> enters only at {', '.join(doors)}"]
    if POSIX.fullmatch(target):
        return [] if name.startswith(POSIX_DOORS) else [f"{name}: <{target}> enters only at {', '.join(POSIX_DOORS)}"]
    if "/" in target or target.endswith(".h"):
        return [f"{name}: <{target}> is no header of this project, of the standard library or of a known door"]
    return []


def self_test() -> None:
    cases = {
        "layout/a.hpp": ("#include <shardmesh/plan/b.hpp>", "may not include"),
        "plan/a.hpp": ("#include <shardmesh/memory/b.hpp>", "may not include"),
        "mesh/a.hpp": ("#include <shardmesh/comm/detail/b.hpp>", "private"),
        "tensor/a.hpp": ("#include <cuda_runtime_api.h>", "enters only"),
        "state/a.hpp": ("#include <unistd.h>", "enters only"),
        "interop/a.hpp": ("#include <ATen/ATen.h>", "enters only"),
        "fsdp/a.hpp": ("#include <shardmesh/interop/b.hpp>", "may not include"),
        "core/a.hpp": ("#include <boost/any.hpp>", "is no header"),
        "checkpoint/format/a.hpp": ("#include <shardmesh/state/b.hpp>", "is pure"),
        "optim/a.hpp": ('#include "adam.hpp"', "must be included"),
        "memory/a.hpp": ("\n" * MOST_LINES + "//", "lines"),
        "comm/unnamed.hpp": ("//", "no test names it"),
    }
    for header, (text, expected) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            path = root / "include" / "shardmesh" / header
            path.parent.mkdir(parents=True)
            path.write_text(text)
            (root / "tests").mkdir()
            (root / "tests" / "t.cpp").write_text("// a")
            found = problems_in(root / "include", root / "tests")
            if not any(expected in one for one in found):
                sys.exit(f"self-test: {header} with {text!r} was not found; got {found}")
    print(f"{len(cases)} violations found, as they should be")


if sys.argv[1:] == ["--self-test"]:
    self_test()
else:
    top = pathlib.Path(__file__).resolve().parents[2]
    if found := problems_in(top / "include", top / "tests"):
        sys.exit("\n".join(found))
