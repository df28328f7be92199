#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""torch_files.py PLACE [--small] [--runs N]: what bench/files measures, through torch.distributed.checkpoint and safetensors.

Two processes with gloo, tensors in host memory. Prints the same lines of JSON: seconds of the slowest rank, the median of
the runs after a first one that is not counted. PyTorch writes safetensors whole from one rank (full_tensor, then save_file) and
loads them by safe_open slices on each rank, which is the quickest that it has. Exits with 77 without PyTorch."""
import argparse
import json
import os
import shutil
import socket
import statistics
import sys
import time

try:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    import torch.multiprocessing as mp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
except ImportError:
    sys.exit(77)

RANKS = 2


def tiny_model():
    shapes = {}
    for i in range(200):
        shapes[f"tiny.{i}.weight"] = (64, 128)
        shapes[f"tiny.{i}.bias"] = (128, 2)
    return shapes


def large_model(small):
    shapes = tiny_model()
    for i in range(32):
        shapes[f"layer.{i}.weight"] = (64, 128) if small else (4096, 2048)
    return shapes


def state_of(mesh, shapes, dim, filled):
    state = {}
    for name, shape in shapes.items():
        local = [n // RANKS if d == dim else n for d, n in enumerate(shape)]
        part = torch.randn(local) if filled else torch.empty(local)
        state[name] = DTensor.from_local(part, mesh, [Shard(dim)], run_check=False)
    return state


def seconds_of(runs, before, run):
    times, cpu = [], []
    for i in range(runs + 1):
        if dist.get_rank() == 0:
            before()
        dist.barrier()
        start, used = time.perf_counter(), time.process_time()
        run()
        own = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
        processors = torch.tensor([time.process_time() - used], dtype=torch.float64)
        dist.all_reduce(own, op=dist.ReduceOp.MAX)
        dist.all_reduce(processors)
        if i > 0:
            times.append(own.item())
            cpu.append(processors.item())
    return statistics.median(times), statistics.median(cpu)


def cases(mesh, place, runs, model, shapes):
    rank = dist.get_rank()
    saved = state_of(mesh, shapes, 0, True)
    same = state_of(mesh, shapes, 0, False)
    other = state_of(mesh, shapes, 1, False)
    directory, file = place + "/checkpoint", place + "/model.safetensors"
    size = sum(4 * t.numel() for t in saved.values())

    def clear():
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.exists(file):
            os.remove(file)

    def row(what, before, run):
        seconds, cpu = seconds_of(runs, before, run)
        if rank == 0:
            print(json.dumps({"model": model, "case": what, "seconds": round(seconds, 6), "cpu_seconds": round(cpu, 4),
                              "bytes": size}), flush=True)

    def full():
        # DTensor.full_tensor leaves the whole on every rank; the first keeps it.
        whole = {}
        for name, tensor in saved.items():
            one = tensor.full_tensor()
            if rank == 0:
                whole[name] = one
        return whole

    row("save", clear, lambda: dcp.save(saved, checkpoint_id=directory))
    row("load, same layout", lambda: None, lambda: dcp.load(same, checkpoint_id=directory))
    row("load, resharding", lambda: None, lambda: dcp.load(other, checkpoint_id=directory))
    try:
        from safetensors import safe_open
        from safetensors.torch import save_file
    except ImportError:
        safe_open = None
    if safe_open is not None:
        def save_model():
            whole = full()
            if rank == 0:
                save_file(whole, file)
                descriptor = os.open(file, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
            dist.barrier()

        def load_model():
            with safe_open(file, framework="pt") as opened:
                for name, tensor in same.items():
                    local = tensor.to_local()
                    rows = local.shape[0]
                    local.copy_(opened.get_slice(name)[rank * rows:(rank + 1) * rows])

        row("safetensors save", clear, save_model)
        row("safetensors load", lambda: None, load_model)
    row("full state", lambda: None, full)
    dist.barrier()
    if rank == 0:
        clear()


def work(rank, port, options):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(RANKS))
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // RANKS))
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (RANKS,))
    os.makedirs(options.place, exist_ok=True)
    cases(mesh, options.place, options.runs, "large", large_model(options.small))
    cases(mesh, options.place, options.runs, "tiny", tiny_model())
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, args=(port, options), nprocs=RANKS)


if __name__ == "__main__":
    main()
