#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""torch_redistribute.py SIDE...: the cases of bench/redistribute.cpp through PyTorch's DTensor.

A rank that torchrun, or bench/redistribute.py, has started; NCCL where there is a GPU for it, else gloo. Prints the
same JSON lines: the slowest rank's medians. Each output is compared with the whole matrix before it is timed."""
import datetime
import json
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
WORDS = {"R": Replicate(), "P": Partial(), "S0": Shard(0), "S1": Shard(1)}
CASES = ["S0->R", "S1->R", "S0->S1", "R->S0", "P->S0", "P->S1", "P->R", "R,S0->R,R", "S0,S1->R,R", "S0,S0->R,R",
         "S0,S1->S1,S0", "P,S0->R,S0", "R,S0->S0,S0", "S0,R->R,S0"]


def meet():
    if CUDA:
        torch.cuda.synchronize()
    dist.barrier()
    if CUDA:
        torch.cuda.synchronize()


def slowest(value):
    tensor = torch.tensor([value], device=DEVICE, dtype=torch.float64)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()


def timed(work):
    """Milliseconds of the work, microseconds of the host in the call."""
    start = time.perf_counter()
    if not CUDA:
        work()
        took = time.perf_counter() - start
        return took * 1e3, took * 1e6
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    host = time.perf_counter() - start
    last.record()
    last.synchronize()
    return first.elapsed_time(last), host * 1e6


def main():
    if CUDA:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", RANK)))
    dist.init_process_group("nccl" if CUDA else "gloo", timeout=datetime.timedelta(seconds=120))
    grid = (2, WORLD // 2) if WORLD >= 4 else (1, WORLD)
    line = init_device_mesh(DEVICE, (WORLD,), mesh_dim_names=("x",))
    plane = init_device_mesh(DEVICE, grid, mesh_dim_names=("y", "x"))
    for side in map(int, sys.argv[1:]):
        generator = torch.Generator().manual_seed(7)
        whole = torch.randint(0, 1 << 16, (side, side), generator=generator).float().to(DEVICE)
        for name in CASES:
            before, after = ([WORDS[word] for word in half.split(",")] for half in name.split("->"))
            mesh = line if len(before) == 1 else plane
            terms = 1
            for dim, placement in enumerate(before):
                terms *= mesh.size(dim) if isinstance(placement, Partial) else 1
            cut = [Replicate() if isinstance(one, Partial) else one for one in before]
            local = distribute_tensor(whole, mesh, cut, src_data_rank=None).to_local().contiguous()
            source = DTensor.from_local(local, mesh, before, run_check=False, shape=torch.Size((side, side)),
                                        stride=(side, 1))
            wanted = distribute_tensor(whole * terms, mesh, after, src_data_rank=None).to_local()
            got = source.redistribute(mesh, after).to_local()
            wrong = int(slowest(float((got != wanted).sum().item())))
            del wanted, got
            runs = 15 if side * side * 4 > 1 << 28 else 50
            times, host = [], []
            for i in range(-5, runs):
                meet()
                ms, us = timed(lambda: source.redistribute(mesh, after))
                if i >= 0:
                    times.append(ms)
                    host.append(us)
            ms, us = slowest(statistics.median(times)), slowest(statistics.median(host))
            if RANK == 0:
                print(json.dumps({"case": name, "side": side, "mib": side * side * 4 / 2**20, "ms": ms, "host_us": us,
                                  "wrong": wrong}), flush=True)
            del source, local
    dist.destroy_process_group()


main()
