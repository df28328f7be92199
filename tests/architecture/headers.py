#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Keeps the header lists of include/meson.build equal to what is on disk: --check, or --write."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parents[2]
build = root / "include" / "meson.build"


def kind_of(header: str) -> str:
    if header.endswith("/nccl/mpi_launch.hpp"):
        return "nccl_mpi"
    if header.endswith("/interop/torch.hpp"):
        return "torch"
    if "/mpi/" in header or header.endswith("/mpi.hpp"):
        return "mpi"
    if "/nccl/" in header or header.endswith("/nccl.hpp"):
        return "nccl"
    if "/cuda/" in header or header.endswith(("/cuda.hpp", "on_devices.hpp", "/interop/cuda_types.hpp",
                                                      "/interop/thrust.hpp")):
        return "cuda"
    return "host"


def wanted() -> str:
    text = build.read_text()
    names = sorted(str(p.relative_to(build.parent)) for p in (build.parent / "shardmesh").rglob("*.[hc]*")
                   if p.suffix in (".hpp", ".cuh"))
    for kind in ("host", "cuda", "nccl", "mpi", "nccl_mpi", "torch"):
        block = "".join(f"  '{n}',\n" for n in names if kind_of(n) == kind)
        begin, end = f"# {kind} headers: begin\n", f"# {kind} headers: end\n"
        text = re.sub(re.escape(begin) + ".*?" + re.escape(end), begin + block + end, text, flags=re.S)
    return text


if sys.argv[1:] == ["--write"]:
    build.write_text(wanted())
elif build.read_text() != wanted():
    sys.exit("include/meson.build does not list the headers on disk; run tests/architecture/headers.py --write")
