#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""torch_collectives.py [FILE]: what bench/collectives measures, through torch.distributed, a process a GPU.

Prints the same table and writes the same JSON: median host time of 1,000 calls of 4 KiB, bus bandwidth of
1 GiB, the slowest rank's. Exits with 77 with fewer than 2 GPUs."""
import datetime
import json
import os
import socket
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SMALL, BIG, CALLS, RUNS = 4 << 10, 1 << 30, 1000, 10


def collectives(world):
    """Name, rounds, and a call for buffers of so many bytes."""
    def all_reduce(send, receive):
        dist.all_reduce(receive)

    def all_gather(send, receive):
        dist.all_gather_into_tensor(receive, send[:receive.numel() // world])

    def reduce_scatter(send, receive):
        dist.reduce_scatter_tensor(receive[:send.numel() // world], send)

    def exchange(send, receive):
        dist.all_to_all_single(receive, send)

    return [("all_reduce", 2, all_reduce), ("all_gather", 1, all_gather),
            ("reduce_scatter", 1, reduce_scatter), ("exchange", 1, exchange)]


def slowest(value):
    tensor = torch.tensor([value], device="cuda", dtype=torch.float64)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()


def meet():
    torch.cuda.synchronize()
    dist.barrier()
    torch.cuda.synchronize()


def measure(call, world):
    elements = BIG // 4 // world * world
    send = torch.zeros(elements, device="cuda")
    receive = torch.zeros(elements, device="cuda")
    few = SMALL // 4 // world * world
    little = send[:few], receive[:few]
    for _ in range(5):
        call(send, receive)
        call(*little)
        meet()
    host = []
    for i in range(CALLS):
        start = time.perf_counter()
        call(*little)
        host.append((time.perf_counter() - start) * 1e6)
        if i % 20 == 19:
            meet()
    device = []
    for _ in range(RUNS):
        meet()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(3):
            call(send, receive)
        stop.record()
        stop.synchronize()
        device.append(start.elapsed_time(stop) / 1e3 / 3)
    return slowest(statistics.median(host)), slowest(statistics.median(device))


def rank_main(rank, world, port, queue):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", device_id=torch.device("cuda", rank),
                            timeout=datetime.timedelta(seconds=60))
    for name, rounds, call in collectives(world):
        host, device = measure(call, world)
        if rank == 0:
            queue.put({"gpus": world, "collective": name, "host_us": {"torch": round(host, 3)},
                       "bus_GBs": {"torch": round(rounds * (world - 1) / world * BIG / 1e9 / device, 2)}})
    dist.destroy_process_group()


def main():
    devices = torch.cuda.device_count()
    if devices < 2:
        print(f"SKIP: needs 2 GPUs, here are {devices}")
        sys.exit(77)
    lines = []
    for world in sorted({2, devices}):
        with socket.socket() as one:
            one.bind(("", 0))
            port = one.getsockname()[1]
        queue = mp.get_context("spawn").SimpleQueue()
        mp.spawn(rank_main, (world, port, queue), nprocs=world)
        while not queue.empty():
            lines.append(queue.get())
    version = ".".join(str(part) for part in torch.cuda.nccl.version())
    print(f"PyTorch {torch.__version__}, NCCL {version}, processes, {CALLS} calls of 4 KiB, 1 GiB")
    print(f"{'GPUs':>4}  {'collective':<15} {'host':>9}   {'bus':>10}")
    for one in lines:
        print(f"{one['gpus']:4d}  {one['collective']:<15} {one['host_us']['torch']:6.2f} us "
              f"{one['bus_GBs']['torch']:7.1f} GB/s")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as file:
            json.dump({"benchmark": "torch_collectives", "date": datetime.date.today().isoformat(),
                       "gpu": torch.cuda.get_device_name(0),
                       "versions": f"PyTorch {torch.__version__}, NCCL {version}", "calls": CALLS,
                       "results": lines}, file, indent=1)


if __name__ == "__main__":
    main()
