#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""training.py RESAVE TOOL HSDP_RESUME [PROCESSES...]: one training, handed from PyTorch to shardmesh and back.

PyTorch trains the dense model of the examples with fully_shard and Adam, in PROCESSES processes (default: one a GPU,
and 4 that share the GPUs; 2 and 4 without GPUs), on every mesh of one and two dimensions that they form, and saves it
(torch.distributed.checkpoint) on the way. For each: the tool's verify finds nothing, its convert gives the full state
bit for bit; what 4 ranks load and save again, PyTorch loads into the same and another sharding, bit for bit. Then the
main job goes on training from PyTorch's checkpoint (with GPUs: on them, by NCCL in one program, and in 4 threads), and
PyTorch takes over its last one. On GPUs the tensors are there and NCCL carries them; else gloo. Runs itself again
under the Python of $SHARDMESH_TORCH_PYTHON; exit 77 without a PyTorch that has fully_shard."""
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

from interop import dcp, dist, load_file, run_tool, same, torch
from safetensors.torch import save_file

try:
    from torch.distributed.checkpoint.state_dict import (StateDictOptions, get_model_state_dict, get_optimizer_state_dict,
                                                         set_model_state_dict, set_optimizer_state_dict)
    from torch.distributed.fsdp import fully_shard
except ImportError:
    print("SKIP: this PyTorch has no torch.distributed.fsdp.fully_shard (2.6 or newer)")
    sys.exit(77)

GPUS = torch.cuda.device_count()
DEVICE = "cuda" if GPUS else "cpu"


def dense() -> torch.nn.Module:
    """The model of the examples; see examples/support/models.hpp."""
    def layer(inputs: int, outputs: int, first: bool = False) -> torch.nn.Sequential:
        parts = [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
        return torch.nn.Sequential(*(reversed(parts) if first else parts))

    model = torch.nn.Module()
    model.net1, model.net2, model.net3 = layer(8, 16), layer(16, 32), layer(32, 64)
    model.net4 = layer(64, 8, first=True)
    return model


class Training:
    """The model and its optimizer, sharded over a mesh."""

    def __init__(self, shape: tuple[int, ...]):
        from torch.distributed.device_mesh import init_device_mesh

        torch.manual_seed(dist.get_world_size())
        self.model = dense().to(DEVICE)
        self.layers = [self.model.net1, self.model.net2, self.model.net3, self.model.net4]
        mesh = init_device_mesh(DEVICE, shape, mesh_dim_names=("replicate", "shard")[-len(shape):])
        for layer in self.layers:
            fully_shard(layer, mesh=mesh)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self) -> None:
        x = torch.rand(4, 8, device=DEVICE)
        for layer in self.layers:
            x = layer(x)
        x.square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self, full: bool = False) -> dict:
        options = StateDictOptions(full_state_dict=full, cpu_offload=full)
        return {"model": get_model_state_dict(self.model, options=options),
                "optim": get_optimizer_state_dict(self.model, self.optimizer, options=options)}

    def load(self, path: str) -> None:
        state = self.state()
        dcp.load(state, checkpoint_id=path)
        set_model_state_dict(self.model, state["model"])
        set_optimizer_state_dict(self.model, self.optimizer, state["optim"])


def tensors(state: dict, prefix: str = "") -> dict:
    """The tensors of a nested state by their full names."""
    found: dict = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= tensors(value, name + ".")
        elif isinstance(value, torch.Tensor):
            found[name] = value.detach().cpu().contiguous().clone()
    return found


def worker(deed: str, *triples: str) -> None:
    """One process of PyTorch. For each mesh shape, checkpoint and file with its full state: `save` trains, saves and
    writes the file, `load` loads and compares."""
    rank = int(os.environ["RANK"])
    if GPUS:
        torch.cuda.set_device(rank % GPUS)
    dist.init_process_group("cpu:gloo,cuda:nccl" if GPUS else "gloo")
    for shape, path, reference in zip(*[iter(triples)] * 3):
        training = Training(tuple(map(int, shape.split("x"))))
        for _ in range(3 if deed == "save" else 1):  # what is loaded must replace something
            training.step()
        if deed == "save":
            dcp.save(training.state(), checkpoint_id=path)
        else:
            training.load(path)
        full = tensors(training.state(full=True))
        if rank == 0 and deed == "save":
            save_file(full, reference)
        elif rank == 0 and (problem := same(load_file(reference), full)):
            sys.exit(f"mesh {shape}, {pathlib.Path(path).parent.name}/{pathlib.Path(path).name}: {problem}")
        training.step()  # it must be able to go on
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # some versions of gloo abort while the interpreter winds down


def in_processes(count: int, *arguments: str) -> None:
    """Workers as torchrun would start them; on more processes than GPUs NCCL is told that each is a host of its own."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    running = []
    for rank in range(count):
        environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                                    "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        if count > GPUS > 0:
            environment["NCCL_HOSTID"] = f"rank-{rank}"
        running.append(subprocess.Popen([sys.executable, __file__, "--worker", *arguments], env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    said = [process.communicate(timeout=180)[0] for process in running]
    for process, text in zip(running, said):
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments[:2])} in {count} processes: {text.strip()[-600:]}")


def shapes(count: int) -> list[str]:
    return [f"{count}"] + [f"{rows}x{count // rows}" for rows in range(1, count + 1) if count % rows == 0 and count > 1]


def ways_to_train() -> dict[str, list[str]]:
    """How the main job goes on, with what options."""
    if not GPUS:
        return {"4 threads": ["--ranks", "4"]}
    return {"4 threads in device memory": ["--ranks", "4", "--device", "cuda"],
            f"NCCL on {GPUS} GPU(s)": ["--ranks", str(GPUS), "--device", "cuda", "--engine", "nccl"]}


def check(count: int, folder: pathlib.Path, resave: str, tool: str, job: str) -> None:
    meshes = shapes(count)
    places = [folder / f"{count}-{shape}" for shape in meshes]
    for place in places:
        place.mkdir()
    in_processes(count, "save", *(str(x) for shape, place in zip(meshes, places)
                                  for x in (shape, place / "torch", place / "full.safetensors")))
    print(f"{count} processes trained and saved on {', '.join(meshes)}", flush=True)
    to_load: list[str] = []
    for number, (shape, place) in enumerate(zip(meshes, places)):
        saved, again, full, converted = (str(place / name) for name in ("torch", "again", "full.safetensors", "x.safetensors"))
        run_tool(tool, "verify", saved)
        run_tool(tool, "convert", saved, converted)
        if problem := same(load_file(full), load_file(converted)):
            raise RuntimeError(f"mesh {shape}, converted: {problem}")
        run_tool(resave, saved, again, "4")
        other = meshes[(number + 1) % len(meshes)]
        to_load += [shape, again, full, other, again, full]
        for name, options in ways_to_train().items():
            out = place / f"trained on {name}"
            run_tool(job, "--checkpoint", saved, "--steps", "3", "--out", str(out), *options)
            last = max(out.iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
            run_tool(tool, "convert", str(last), f"{out}.safetensors")
            to_load += [shape, str(last), f"{out}.safetensors"]
        print(f"mesh {shape}: shardmesh has PyTorch's state, and trained on with {' and '.join(ways_to_train())}", flush=True)
    in_processes(count, "load", *to_load)
    print(f"{count} processes have all of it again, each state on its mesh and on another: ok", flush=True)


def main() -> int:
    resave, tool, job, *counts = sys.argv[1:]
    failed = 0
    for count in map(int, counts) if counts else sorted({GPUS, max(4, GPUS)} if GPUS else {2, 4}):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(count, pathlib.Path(folder), resave, tool, job)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"{count} processes: FAILED: {error}", flush=True)
    print(f"PyTorch {torch.__version__} on {GPUS or 'no'} GPU(s): {'all ok' if failed == 0 else f'{failed} FAILED'}")
    return failed > 0


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        worker(*sys.argv[2:])
    else:
        sys.exit(main())
