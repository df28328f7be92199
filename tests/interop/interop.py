#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""interop.py RESAVE TOOL [FIXTURE...]: rows B11 and B12 with a real PyTorch.

For every checkpoint in tests/data/checkpoints: loads it with shardmesh on 1, 3 and 4 ranks, saves it, and
reads what was saved with PyTorch. In full, plain values and nesting included: must equal what PyTorch
reads from the original. Sharded, in 2 and 4 processes over gloo as Shard(0), Shard(1) and Replicate: must
equal the tensors in reference.safetensors. The tool's `convert` must give the tensors of the reference; so
must safetensors that 3 ranks write at once: one file, a hub's files with an index, and a file a rank, which
PyTorch's HuggingFaceStorageReader puts together where it has one. Runs itself again under the Python of $SHARDMESH_TORCH_PYTHON; exit 77 without PyTorch."""
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "checkpoints"
python = os.environ.get("SHARDMESH_TORCH_PYTHON")
if python and "INTEROP_INNER" not in os.environ:
    os.execve(python, [python, *sys.argv], os.environ | {"INTEROP_INNER": "1"})
try:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException
    from safetensors.torch import load_file
except ImportError as error:
    missing = os.environ.get("SHARDMESH_TORCH_MISSING")
    print(f"SKIP: {missing or error}; bash tests/interop/torch_env.sh installs PyTorch, SHARDMESH_TORCH_PYTHON names its Python")
    sys.exit(77)
try:
    from torch.distributed.checkpoint import HuggingFaceStorageReader
except ImportError:  # before 2.8
    HuggingFaceStorageReader = None
BEFORE_2_4 = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4)  # it finds a container only as one value
KNOWN_TO_HF = (torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
warnings.filterwarnings("ignore")
LOAD = inspect.signature(dcp.load).parameters


def read_in_full(path: pathlib.Path) -> dict:
    try:
        from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    except ImportError:  # 2.3
        from torch.distributed.checkpoint.format_utils import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    state: dict = {}
    _load_state_dict(state, storage_reader=dcp.FileSystemReader(path), planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    return state


def read_or_none(path: pathlib.Path) -> dict | None:
    try:
        return read_in_full(path)
    except BaseException:  # CheckpointException is no Exception
        return None


def same(a, b, where: str = "state") -> str:
    """In what two nested states differ; "" if in nothing."""
    if isinstance(a, torch.Tensor) != isinstance(b, torch.Tensor):
        return f"{where}: {type(a).__name__} against {type(b).__name__}"
    if isinstance(a, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{where}: {a.dtype} {tuple(a.shape)} against {b.dtype} {tuple(b.shape)}"
        equal = torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))
        return "" if equal else f"{where}: values differ"
    if type(a) is not type(b):
        return f"{where}: {type(a).__name__} against {type(b).__name__}"
    if isinstance(a, dict):
        if list(map(str, sorted(a, key=str))) != list(map(str, sorted(b, key=str))):
            return f"{where}: keys {sorted(a, key=str)[:9]} against {sorted(b, key=str)[:9]}"
        return next((d for k in a if (d := same(a[k], b[k], f"{where}.{k}"))), "")
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} items against {len(b)}"
        return next((d for i in range(len(a)) if (d := same(a[i], b[i], f"{where}[{i}]"))), "")
    return "" if a == b or a != a else f"{where}: {a!r} against {b!r}"


def emptied(value):
    """A state of the same names and shapes, without what it holds."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, dict):
        return {key: emptied(one) for key, one in value.items()}
    if isinstance(value, list):
        return [emptied(one) for one in value]
    return type(value)() if isinstance(value, (bool, int, float)) else value


def references(fixture: str) -> dict:
    found = {}
    for path in sorted(DATA.joinpath(fixture).glob("*.safetensors")):
        found |= load_file(path)
    return found


def sharded_worker(fixture: str, target: str) -> None:
    """One process of a gloo job: loads as DTensor in every placement, compares the full tensor."""
    from torch.distributed.device_mesh import init_device_mesh
    try:
        from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    except ImportError:  # 2.3
        from torch.distributed._tensor import Replicate, Shard, distribute_tensor

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for placement in (Shard(0), Shard(1), Replicate()):
        wanted = {k: v for k, v in references(fixture).items() if not placement.is_shard() or v.dim() > placement.dim}
        # gloo has no collective for some dtypes: those are compared in the full read alone.
        wanted = {k: v for k, v in wanted.items() if v.dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8)}
        state = {k: distribute_tensor(torch.zeros_like(v), mesh, [placement]) for k, v in wanted.items()}
        dcp.load(state, checkpoint_id=target)
        for key, tensor in state.items():
            if problem := same(tensor.full_tensor(), wanted[key], key):
                sys.exit(f"{placement}: {problem}")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # some versions of gloo abort while the interpreter winds down


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-port=29611",
               __file__, "--worker", *arguments]
    return subprocess.run(command, text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def run_tool(*command: str) -> None:
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def check_safetensors(resave: str, source: pathlib.Path, fixture: str, scratch: pathlib.Path) -> list[str]:
    """What 3 ranks write at once as safetensors, read by the safetensors library and by PyTorch."""
    wanted = {k: v for k, v in references(fixture).items() if v.dtype != torch.complex128}
    problems = []
    target = {form: scratch / f"{fixture}-{form}{'.safetensors' if form == 'safetensors' else ''}"
              for form in ("async", "safetensors", "hub", "shards")}
    for form, path in target.items():
        run_tool(resave, str(source), str(path), "3", form)
    problems.append(same(wanted, load_file(target["safetensors"]), f"{fixture}, one file"))
    found = {}
    index = target["hub"] / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    for name in names:
        found |= load_file(target["hub"] / name)
    problems.append(same(wanted, found, f"{fixture}, a hub's files"))
    state = {k: torch.zeros_like(v) for k, v in references(fixture).items()}
    dcp.load(state, storage_reader=dcp.FileSystemReader(target["async"]), **({"no_dist": True} if "no_dist" in LOAD else {}))
    problems.append(same(references(fixture), state, f"{fixture} saved in the background"))
    if HuggingFaceStorageReader is not None:
        # Its table of dtypes is shorter than PyTorch's own.
        state = {k: torch.zeros_like(v) for k, v in wanted.items() if v.dtype in KNOWN_TO_HF}
        if len(state) == len(wanted):
            dcp.load(state, storage_reader=HuggingFaceStorageReader(str(target["shards"])))
            problems.append(same(wanted, state, f"{fixture}, a file a rank"))
    return problems


def check_fixture(resave: str, tool: str, fixture: str, scratch: pathlib.Path) -> list[str]:
    problems = []
    source = DATA / fixture / "checkpoint" if (DATA / fixture / "checkpoint").exists() else DATA / fixture
    original = None
    if (source / ".metadata").exists() and fixture != "dcp_safetensors":
        original = read_or_none(source)  # an older PyTorch cannot read what a newer one wrote
    for ranks in (1, 3, 4):
        target = scratch / f"{fixture}-{ranks}"
        run_tool(resave, str(source), str(target), str(ranks), *(["whole"] if BEFORE_2_4 else []))
        if original is not None:
            problems.append(same(original, read_in_full(target), f"{fixture} saved by {ranks} ranks"))
        tensors = {k: torch.zeros_like(v) for k, v in references(fixture).items()}
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(target), **({"no_dist": True} if "no_dist" in LOAD else {}))
        problems.append(same(references(fixture), tensors, f"{fixture} saved by {ranks} ranks, tensors"))
    if original is not None and fixture.endswith("hsdp"):
        target = scratch / f"{fixture}-whole"
        run_tool(resave, str(source), str(target), "2", "whole")
        problems.append(same(original, read_in_full(target), f"{fixture} with whole containers"))
        states = []
        for path in (source, target):  # 2.3 leaves values in lists as they are, whatever the file
            states.append(emptied(original))
            dcp.load(states[-1], storage_reader=dcp.FileSystemReader(path), **({"no_dist": True} if "no_dist" in LOAD else {}))
        problems.append(same(*states, f"{fixture} with whole containers, into a nested state"))
    problems += check_safetensors(resave, source, fixture, scratch)
    converted = scratch / f"{fixture}.safetensors"
    run_tool(tool, "convert", str(source), str(converted))
    problems.append(same(references(fixture), load_file(converted), f"{fixture} converted"))
    return [p for p in problems if p]


def main() -> int:
    resave, tool, *chosen = sys.argv[1:]
    fixtures = chosen or sorted(p.name for p in DATA.iterdir() if p.is_dir())
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        for fixture in fixtures:
            try:
                problems = check_fixture(resave, tool, fixture, scratch)
            except (Exception, CheckpointException) as error:  # reported with the fixture's name
                problems = [f"{fixture}: {error}"]
            failed += bool(problems)
            print(f"{fixture:18} {'ok' if not problems else problems[0][:600]}", flush=True)
        for fixture in ("hsdp_fsdp2", "fsdp2_mlp_dim5", "dtypes"):
            for processes in (2, 4):
                if fixture not in fixtures:
                    continue
                done = torchrun(processes, fixture, str(scratch / f"{fixture}-4"))
                failed += done.returncode != 0
                said = "ok" if done.returncode == 0 else (done.stdout + done.stderr)[-600:]
                print(f"{fixture:18} loaded by {processes} processes as DTensors: {said}", flush=True)
    print(f"PyTorch {torch.__version__}: {'all ok' if failed == 0 else f'{failed} FAILED'}")
    return failed > 0


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        sharded_worker(*sys.argv[2:])
    else:
        sys.exit(main())
