#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""torch_files.py PLACE [--small] [--runs N] [--device cpu|cuda] [--ranks N] [--all] [--files-only] [--budget SECONDS]: what
bench/files measures, through torch.distributed.checkpoint and safetensors.

cpu: two processes with gloo, tensors in host memory. cuda: a process a GPU, NCCL, and every way that PyTorch has, a line for each
("variant"), with other loaders of safetensors where they can be imported; --all has the same rows in host memory. Prints the
same lines of JSON: seconds of the slowest rank, the median of the runs after a first one that is not counted. What fails or is
wrong is an "error" in its line. PyTorch writes safetensors whole from one rank (full_tensor, then save_file) and loads them by
safe_open slices on each rank, which is the quickest that it has. Exits with 77 without PyTorch."""
import argparse
import datetime
import functools
import importlib
import json
import os
import shutil
import socket
import statistics
import sys
import time
import warnings

try:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    import torch.multiprocessing as mp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
except ImportError:
    sys.exit(77)

try:
    import safetensors.torch
except ImportError:
    safetensors = None

# Without the Run:ai streamer: in a job of several ranks one that loads alone waits for the others, and has not ended in 80 s.
LOADERS = {"instanttensor": "instanttensor", "fastsafetensors": "fastsafetensors"}


def tiny_model():
    shapes = {}
    for i in range(200):
        shapes[f"tiny.{i}.weight"] = (64, 128)
        shapes[f"tiny.{i}.bias"] = (128, 2)
    return shapes


def large_model(shape):
    shapes = tiny_model()
    for i in range(32):
        shapes[f"layer.{i}.weight"] = shape
    return shapes


def part_of(shape, dim):
    """Where this rank's rows or columns begin and end; the whole without `dim`."""
    ranges = [(0, n) for n in shape]
    if dim is not None:
        chunk = -(-shape[dim] // dist.get_world_size())
        begin = min(dist.get_rank() * chunk, shape[dim])
        ranges[dim] = (begin, min(begin + chunk, shape[dim]))
    return ranges


def values(number, shape, ranges, device):
    """The elements of a tensor's part: whole numbers above 0, exact in float32."""
    rows, columns = (torch.arange(*one, device=device) for one in ranges)
    elements = rows[:, None] * shape[1] + columns[None, :]
    return ((elements * 1664525 + number * 1013904223) & 0x7fffff).float().add_(1)


def state_of(mesh, shapes, dim, filled):
    state = {}
    for number, (name, shape) in enumerate(shapes.items()):
        ranges = part_of(shape, dim)
        part = (values(number, shape, ranges, mesh.device_type) if filled
                else torch.zeros([end - begin for begin, end in ranges], device=mesh.device_type))
        state[name] = DTensor.from_local(part, mesh, [Shard(dim)], run_check=False, shape=torch.Size(shape), stride=(shape[1], 1))
    return state


def wrong(shapes, state, dim=None, some=False):
    """What is wrong with this rank's parts, or with the whole tensors that it has; with `some` two of them are looked at."""
    for number, (name, shape) in enumerate(shapes.items()):
        if some and number not in (1, len(shapes) - 1):
            continue
        if name not in state:
            return f"wrong: {name} is missing"
        one = state[name]
        local = one.to_local() if isinstance(one, DTensor) else one
        if not torch.equal(local, values(number, shape, part_of(shape, dim), local.device)):
            return f"wrong: elements of {name}"
    return ""


class Cases:
    """The rows of one model."""

    def __init__(self, mesh, options, model, shapes):
        self.mesh, self.options, self.model, self.shapes = mesh, options, model, shapes
        self.rank, self.device, self.cuda = dist.get_rank(), mesh.device_type, mesh.device_type == "cuda"
        self.talk = dist.new_group(backend="gloo") if self.cuda else None
        # What goes on in the background must not meet what the ranks say here.
        self.background = dist.new_group(backend="gloo") if options.all else None
        self.directory, self.file = options.place + "/checkpoint", options.place + "/model.safetensors"
        self.size = sum(4 * a * b for a, b in shapes.values())
        self.saved = state_of(mesh, shapes, 0, True)
        self.same = state_of(mesh, shapes, 0, False)
        self.result = None  # of the run before: what it takes to give it back is not timed

    def meet(self, problem=""):
        """Ranks wait for each other, and all hear of a problem that one has."""
        if self.cuda:
            torch.cuda.synchronize()
        problems = [None] * dist.get_world_size()
        dist.all_gather_object(problems, problem, group=self.talk)
        for rank, one in enumerate(problems):
            if one:
                raise RuntimeError(f"{one} [rank {rank}]")

    def attempt(self, work):
        problem = ""
        try:
            work()
        except Exception as error:  # pylint: disable=broad-except
            problem = repr(error)[:300]
        self.meet(problem)

    def seconds_of(self, before, run):
        times, cpu, spent, i = [], [], 0.0, 0
        while i <= self.options.runs and (i < 2 or spent < self.options.budget):
            began = time.perf_counter()
            self.attempt(before)
            dist.barrier(group=self.talk)
            start, used, problem = time.perf_counter(), time.process_time(), ""
            try:
                run()
                if self.cuda:
                    torch.cuda.synchronize()
            except Exception as error:  # pylint: disable=broad-except
                problem = repr(error)[:300]
            own = torch.tensor([time.perf_counter() - start, time.perf_counter() - began], dtype=torch.float64)
            processors = torch.tensor([time.process_time() - used], dtype=torch.float64)
            self.meet(problem)
            dist.all_reduce(own, op=dist.ReduceOp.MAX, group=self.talk)
            dist.all_reduce(processors, group=self.talk)
            spent += own[1].item()
            if i > 0:
                times.append(own[0].item())
                cpu.append(processors.item())
            i += 1
        return statistics.median(times), statistics.median(cpu)

    def row(self, what, before, run, check=lambda: "", variant=None):
        """Times and checks; prints what came of it. Returns whether it went well."""
        line = {"model": self.model, "case": what}
        if variant:
            line["variant"] = variant
        try:
            seconds, cpu = self.seconds_of(before, run)
            if self.options.all:
                found = []
                self.attempt(lambda: found.append(check()))
                self.meet(found[0])
            line.update(seconds=round(seconds, 6), cpu_seconds=round(cpu, 4), bytes=self.size)
        except Exception as error:  # pylint: disable=broad-except
            line["error"] = str(error)
        if self.rank == 0:
            print(json.dumps(line), flush=True)
        self.drop()
        if self.cuda:
            torch.cuda.empty_cache()
        return "error" not in line

    def drop(self):
        """Gives back what a run has made: tensors first, then what owns their memory."""
        owners = self.result[1:] if isinstance(self.result, tuple) else ()
        self.result = None
        for owner in owners:
            owner.close()

    def keep(self, make):
        """What a run makes: kept where it is checked; else given back at once, which has always been counted."""
        self.result = make()
        if not self.options.all:
            self.result = None

    def remove(self):
        if self.rank == 0:
            shutil.rmtree(self.directory, ignore_errors=True)
            if os.path.exists(self.file):
                os.remove(self.file)

    def full(self):
        """DTensor.full_tensor leaves the whole on every rank; the first keeps it."""
        whole = {}
        for name, tensor in self.saved.items():
            one = tensor.full_tensor()
            if self.rank == 0:
                whole[name] = one.cpu()
        return whole

    def zeroed(self, state):
        def zero():
            self.drop()
            if self.options.all:
                for tensor in state.values():
                    tensor.to_local().zero_()
        return zero

    def check_whole(self):
        return wrong(self.shapes, self.result, some=True) if self.rank == 0 else ""

    def checkpoints(self):
        if self.options.all:
            from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
            self.row("save", self.remove, lambda: dcp.save(self.saved, storage_writer=dcp.FileSystemWriter(
                self.directory, sync_files=True)), variant="a thread a rank")
            self.row("save", self.remove, lambda: dcp.save(self.saved, storage_writer=dcp.FileSystemWriter(
                self.directory, sync_files=True, thread_count=8, single_file_per_rank=False),
                planner=DefaultSavePlanner(enable_plan_caching=True)), variant="8 threads a rank, plan kept")
        else:
            self.row("save", self.remove, lambda: dcp.save(self.saved, checkpoint_id=self.directory))
        self.row("load, same layout", self.zeroed(self.same), lambda: dcp.load(self.same, checkpoint_id=self.directory),
                 lambda: wrong(self.shapes, self.same, 0))
        other = state_of(self.mesh, self.shapes, 1, False)
        self.row("load, resharding", self.zeroed(other), lambda: dcp.load(other, checkpoint_id=self.directory),
                 lambda: wrong(self.shapes, other, 1))

    def states(self):
        if not self.options.all:
            self.row("full state", self.drop, lambda: self.keep(self.full))
            return
        from torch.distributed import _state_dict_utils as utils  # what get_model_state_dict does
        self.row("full state", self.drop, lambda: self.keep(lambda: utils._gather_state_dict(
            self.saved, cpu_offload=True, ranks_only=(0,))), self.check_whole, "full_state_dict, cpu_offload")
        self.row("full state", self.drop, lambda: self.keep(self.full), self.check_whole, "full_tensor, cpu")

        def check():
            return wrong(self.shapes, self.result, 0, some=True)

        self.row("offload", self.drop, lambda: self.keep(lambda: utils._offload_state_dict_to_cpu(self.saved)), check, "cpu_offload")
        if self.cuda:
            kept = []

            def copy():
                if not kept:
                    kept.append(utils._create_cpu_state_dict(self.saved, pin_memory=True))
                self.result = utils._copy_state_dict(self.saved, kept[0], non_blocking=True)

            self.row("offload, into pinned memory that the caller keeps", self.drop, copy, check)

    def in_background(self):
        saving, stager = [], []

        def wait():
            while saving:
                future = saving.pop()
                getattr(future, "upload_completion", future).result()

        def check():
            wait()
            self.zeroed(self.same)()
            dcp.load(self.same, checkpoint_id=self.directory)
            return wrong(self.shapes, self.same, 0)

        def save(**more):
            saving.append(dcp.async_save(self.saved, checkpoint_id=self.directory, process_group=self.background, **more))

        def pinned(new):
            from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
            if new or not stager:
                stager[:] = [DefaultStager(StagingOptions(use_pinned_memory=True, use_shared_memory=False,
                                                          use_async_staging=False, use_non_blocking_copy=True))]
            save(async_stager=stager[0])

        what = "async save, caller blocked, host snapshot"
        self.row(what, wait, save, check, "default")
        if self.cuda and not self.row(what, wait, lambda: pinned(False), check, "pinned stager, kept"):
            # A second save through one stager fails in some versions.
            self.row(what, wait, lambda: pinned(True), check, "pinned stager, new each time")

    def safetensors_small(self):
        """As users of PyTorch alone do it, in host memory."""
        def save_model():
            whole = self.full()
            if self.rank == 0:
                self.save_file(whole)
            dist.barrier(group=self.talk)

        self.row("safetensors save", self.remove, save_model)
        self.row("safetensors load", lambda: None, self.load_slices)

    def save_file(self, whole):
        safetensors.torch.save_file(whole, self.file)
        descriptor = os.open(self.file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    def load_slices(self, device="cpu"):
        with safetensors.safe_open(self.file, framework="pt", device=device) as opened:
            for name, tensor in self.same.items():
                begin, end = part_of(self.shapes[name], 0)[0]
                tensor.to_local().copy_(opened.get_slice(name)[begin:end])

    def safetensors_all(self):
        """Into shares, into one GPU, and whole into each, by every loader that is here."""
        here = f"cuda:{self.rank}" if self.cuda else "cpu"
        self.attempt(self.remove)

        def make():
            whole = self.full()
            if self.rank == 0:
                self.save_file(whole)

        self.attempt(make)

        def parts():
            return wrong(self.shapes, self.same, 0)

        self.row("safetensors load", self.zeroed(self.same), self.load_slices, parts, "safe_open")
        if self.cuda:
            self.row("safetensors load", self.zeroed(self.same), lambda: self.load_slices(here), parts, "safe_open on the device")
        ways = {"load_file": lambda: (safetensors.torch.load_file(self.file, device=here),)}
        if self.cuda:
            for name, module in LOADERS.items():
                missing = ""
                try:
                    importlib.import_module(module)
                except Exception as error:  # pylint: disable=broad-except
                    missing = repr(error)[:200]
                try:
                    self.meet(missing)
                    ways[name] = functools.partial(getattr(self, "load_by_" + module), here)
                except RuntimeError:
                    if self.rank == 0:
                        print(json.dumps({"model": self.model, "case": "safetensors load, one GPU", "variant": name,
                                          "skipped": missing or "not on every rank"}), flush=True)

        def one(way):
            if self.rank == 0:
                self.keep(way)

        def whole():
            return wrong(self.shapes, self.result[0], some=True)

        for name, way in ways.items():
            self.row("safetensors load, one GPU", self.drop, lambda way=way: one(way), lambda: whole() if self.rank == 0 else "", name)
        if self.options.files_only:
            return
        for name, way in ways.items():
            self.row("safetensors load, replicated", self.drop, lambda way=way: self.keep(way), whole, name)
        if "instanttensor" in ways:  # last: ranks wait for each other in it
            self.row("safetensors load, replicated", self.drop, lambda: self.keep(
                lambda: self.load_by_instanttensor(here, process_group=dist.group.WORLD)), whole, "instanttensor, ranks together")

    def load_by_instanttensor(self, here, **more):
        from instanttensor import safe_open
        with safe_open([self.file], framework="pt", device=torch.device(here).index, **more) as opened:
            return (dict(opened.tensors()),)

    def load_by_fastsafetensors(self, here):
        from fastsafetensors import SafeTensorsFileLoader, SingleGroup
        loader = SafeTensorsFileLoader(SingleGroup(), torch.device(here), nogds=True)
        loader.add_filenames({0: [self.file]})
        buffers = loader.copy_files_to_device()
        return {name: buffers.get_tensor(name) for name in loader.get_keys()}, buffers, loader

    def run(self):
        large = self.model == "large"
        self.checkpoints()
        if safetensors is not None and not self.options.all:
            self.safetensors_small()
        if not self.options.files_only:
            self.states()
            if self.options.all and large:
                self.in_background()
        if safetensors is not None and self.options.all and large:
            self.safetensors_all()
        self.meet()
        self.remove()


def work(rank, port, options):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(options.ranks))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // options.ranks))
    if options.device == "cuda":
        torch.cuda.set_device(rank)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=torch.device("cuda", rank), timeout=datetime.timedelta(seconds=90))
    else:
        dist.init_process_group("gloo")
    mesh = init_device_mesh(options.device, (options.ranks,))
    os.makedirs(options.place, exist_ok=True)
    shape = (64, 128) if options.small else (8192, 4096) if options.device == "cuda" else (4096, 2048)
    for model, shapes in (("tiny", tiny_model()), ("large", large_model(shape))):
        try:
            Cases(mesh, options, model, shapes).run()
        except Exception as error:  # pylint: disable=broad-except
            if rank == 0:
                print(json.dumps({"model": model, "case": "all", "error": repr(error)[:300]}), flush=True)
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--files-only", action="store_true")
    parser.add_argument("--budget", type=float, default=1e9)
    options = parser.parse_args()
    if options.device == "cuda" and torch.cuda.device_count() == 0:
        print(json.dumps({"model": "all", "case": "launch", "error": "PyTorch finds no GPU"}))
        sys.exit(1)
    options.all = options.all or options.device == "cuda"
    options.ranks = options.ranks or (torch.cuda.device_count() if options.device == "cuda" else 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, args=(port, options), nprocs=options.ranks)


if __name__ == "__main__":
    main()
