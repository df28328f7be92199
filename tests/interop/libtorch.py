#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""libtorch.py COMPILER...: examples/torch_hsdp.cpp, built here against the LibTorch of PyTorch, beside PyTorch.

PyTorch trains the same module on the same data with its own fully_shard, in 2 and 4 processes under hybrid sharding, and
with Adam. Both start from a checkpoint that PyTorch wrote. For 20 steps losses and, at the end, weights agree to 1e-5.
What shardmesh loads and saves is PyTorch's state bit for bit; PyTorch takes over what shardmesh trained, goes on as
the training that never left it, and hands it back bit for bit. Then the checks of tests/interop/libtorch.cpp. Runs
itself again under the Python of $SHARDMESH_TORCH_PYTHON; exit 77 without PyTorch or without its headers."""
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from interop import dcp, dist, read_in_full, same, torch

try:
    from torch.distributed.checkpoint.state_dict import (StateDictOptions, get_model_state_dict, get_optimizer_state_dict,
                                                         set_model_state_dict, set_optimizer_state_dict)
    from torch.distributed.fsdp import fully_shard
except ImportError:
    print("SKIP: this PyTorch has no torch.distributed.fsdp.fully_shard (2.6 or newer)")
    sys.exit(77)

TOP = pathlib.Path(__file__).resolve().parents[2]
STEPS, MORE = 20, 5
MESHES = ((1, 2), (2, 2))
CLOSE = 1e-5


class Net(torch.nn.Module):
    """The module of examples/torch_hsdp.cpp."""

    def __init__(self):
        super().__init__()
        self.add_module("in", torch.nn.Linear(8, 33))
        self.mid, self.out = torch.nn.Linear(33, 16), torch.nn.Linear(16, 4)
        self.scale = torch.nn.Parameter(torch.full((4,), 2.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.seen += len(x)
        return self.out(torch.relu(self.mid(torch.tanh(self.get_submodule("in")(x))))) * self.scale


def numbers(step: int, rank: int, columns: int, seed: int) -> torch.Tensor:
    rows = range(rank * 4, rank * 4 + 4)
    return torch.tensor([[(step * 31 + i * 7 + j * 13 + seed) % 17 / 16 - 0.5 for j in range(columns)] for i in rows])


class Training:
    def __init__(self, shape: tuple[int, int]):
        from torch.distributed.device_mesh import init_device_mesh

        torch.manual_seed(7)
        self.model = Net()
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
        for layer in (self.model.get_submodule("in"), self.model.mid, self.model.out, self.model):
            fully_shard(layer, mesh=mesh)
        self.optimizer = torch.optim.Adam((p for p in self.model.parameters() if p.requires_grad), lr=0.01)

    def step(self, step: int) -> float:
        error = torch.nn.functional.mse_loss(self.model(numbers(step, dist.get_rank(), 8, 0)), numbers(step, dist.get_rank(), 4, 5))
        error.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        total = error.detach().clone()
        dist.all_reduce(total)
        return total.item() / dist.get_world_size()

    def state(self) -> dict:
        return {"model": get_model_state_dict(self.model, options=StateDictOptions()),
                "optim": get_optimizer_state_dict(self.model, self.optimizer, options=StateDictOptions())}

    def load(self, path: str) -> None:
        state = self.state()
        dcp.load(state, checkpoint_id=path)
        set_model_state_dict(self.model, state["model"])
        set_optimizer_state_dict(self.model, self.optimizer, state["optim"])


def worker(deed: str, rows: str, columns: str, place: str) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    training = Training((int(rows), int(columns)))
    if deed == "start":  # two steps, so that the optimizer has a state; then the reference
        for step in (100, 101):
            training.step(step)
        dcp.save(training.state(), checkpoint_id=f"{place}/start")
        losses = [training.step(step) for step in range(STEPS)]
        dcp.save(training.state(), checkpoint_id=f"{place}/reference")
        losses += [training.step(step) for step in range(STEPS, STEPS + MORE)]
    else:  # what shardmesh trained, handed back as it was, and gone on with
        training.step(200)
        training.load(f"{place}/trained")
        dcp.save(training.state(), checkpoint_id=f"{place}/handed-back")
        losses = [training.step(step) for step in range(STEPS, STEPS + MORE)]
    if dist.get_rank() == 0:
        print("LOSSES", *losses)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # some versions of gloo abort while the interpreter winds down


def in_processes(deed: str, mesh: tuple[int, int], place: pathlib.Path) -> list[float]:
    count = mesh[0] * mesh[1]
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    running = []
    for rank in range(count):
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen([sys.executable, __file__, "--worker", deed, *map(str, mesh), str(place)], env=environment,
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [process.communicate(timeout=300)[0] for process in running]
    for process, text in zip(running, said):
        if process.returncode != 0:
            raise RuntimeError(f"PyTorch, {deed} on {mesh}: {text.strip()[-1500:]}")
    return [float(x) for x in next(line for line in said[0].splitlines() if line.startswith("LOSSES")).split()[1:]]


def run(program: pathlib.Path, *arguments) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{program.name} {' '.join(map(str, arguments))}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done.stdout


def build(compiler: list[str], folder: pathlib.Path, sources: list[pathlib.Path]) -> list[pathlib.Path]:
    """The programs, compiled side by side: PyTorch's headers take their time."""
    from torch.utils.cpp_extension import include_paths

    lib = pathlib.Path(torch.__path__[0], "lib")
    flags = ["-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include",
             *(flag for path in include_paths() for flag in ("-isystem", path))]
    libraries = [f"-L{lib}", f"-Wl,-rpath,{lib}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-lz", "-pthread"]
    running = [subprocess.Popen([*compiler, *flags, str(source), "-o", str(folder / source.stem), *libraries], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for source in sources]
    for source, process in zip(sources, running):
        said = process.communicate()[0]
        if process.returncode != 0:
            sys.exit(f"{source.name} does not compile:\n{said[-4000:]}")
    return [folder / source.stem for source in sources]


def far(a: list[float], b: list[float]) -> float:
    if len(a) != len(b):
        raise RuntimeError(f"{len(a)} losses against {len(b)}")
    return max(abs(x - y) for x, y in zip(a, b))


def check(program: pathlib.Path, mesh: tuple[int, int], place: pathlib.Path) -> None:
    reference = in_processes("start", mesh, place)
    run(program, place / "start", place / "copy", *mesh, 0)
    if problem := same(read_in_full(place / "start"), read_in_full(place / "copy")):
        raise RuntimeError(f"{mesh}: PyTorch's state through shardmesh: {problem}")
    losses = [float(line) for line in run(program, place / "start", place / "trained", *mesh, STEPS).split()]
    apart = far(losses, reference[:STEPS])
    if not apart <= CLOSE or losses[-1] > losses[0] * 0.9:
        raise RuntimeError(f"{mesh}: losses {losses} against {reference[:STEPS]}")
    ours, theirs = read_in_full(place / "trained"), read_in_full(place / "reference")
    weights = max((ours["model"][name].double() - theirs["model"][name].double()).abs().max().item() for name in theirs["model"])
    if sorted(ours["model"]) != sorted(theirs["model"]) or not weights <= CLOSE:
        raise RuntimeError(f"{mesh}: weights {list(ours['model'])} of {list(theirs['model'])} are up to {weights} apart")
    if ours["model"]["seen"] != theirs["model"]["seen"]:
        raise RuntimeError(f"{mesh}: the buffer is {ours['model']['seen']} against {theirs['model']['seen']}")
    further = in_processes("continue", mesh, place)
    if not (on := far(further, reference[STEPS:])) <= CLOSE:
        raise RuntimeError(f"{mesh}: PyTorch goes on with losses {further} against {reference[STEPS:]}")
    run(program, place / "handed-back", place / "again", *mesh, 0)
    for name in ("handed-back", "again"):
        if problem := same(read_in_full(place / "trained"), read_in_full(place / name)):
            raise RuntimeError(f"{mesh}: shardmesh's state through PyTorch, {name}: {problem}")
    print(f"mesh {mesh}: {STEPS} losses at most {apart:.1e} apart, weights {weights:.1e}; PyTorch goes on, {on:.1e} apart", flush=True)


def main() -> int:
    if not pathlib.Path(torch.__path__[0], "include/ATen/core/Tensor.h").exists():
        print("SKIP: this PyTorch has no headers")
        return 77
    if not hasattr(torch, "float4_e2m1fn_x2"):
        print("SKIP: interop/torch.hpp knows the element types of PyTorch 2.8 and newer")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        program, cases = build(sys.argv[1:], pathlib.Path(folder), [TOP / "examples/torch_hsdp.cpp", TOP / "tests/interop/libtorch.cpp"])
        print(run(cases), end="", flush=True)
        for mesh in MESHES:
            place = pathlib.Path(folder, "x".join(map(str, mesh)))
            place.mkdir()
            check(program, mesh, place)
    print(f"LibTorch {torch.__version__}: all ok")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        worker(*sys.argv[2:])
    else:
        sys.exit(main())
