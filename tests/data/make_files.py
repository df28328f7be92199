#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes files/: checkpoints of kinds that PyTorch, Megatron-Core and model hubs leave on disks. Needs PyTorch (2.11 was
used) and safetensors; run once, the results are committed."""
import dataclasses
import enum
import os
import pathlib
import pickle
import shutil
import sys
import types
import warnings

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).parent / "files"
shutil.rmtree(HERE, ignore_errors=True)
HERE.mkdir()
os.chdir(HERE)  # checkpoints keep the path that they were saved to


def full(value, *shape):
    return torch.full(shape, float(value))


def save(name, state, **options):
    dcp.save(state, checkpoint_id=name, no_dist=True, **options)


def package(name):
    for depth in range(1, name.count(".") + 2):
        part = ".".join(name.split(".")[:depth])
        sys.modules.setdefault(part, types.ModuleType(part))
    return sys.modules[name]


def belongs(cls, module):
    """Makes a class look as if it came from a module that nobody has."""
    cls.__module__, cls.__qualname__ = module, cls.__name__
    setattr(package(module), cls.__name__, cls)
    return cls


# Empty parts of keys.
save("keys", {"": {"kernel": full(2, 3), "": full(3, 2)}, "kernel": full(7, 3), "a": {"": {"b": 5}}, "list": [{"k": 1}, {"k": [2, 3]}]})

# Four-bit floats and their scales, in both formats.
four = torch.arange(8, dtype=torch.uint8).reshape(2, 4).view(torch.float4_e2m1fn_x2)
scales = torch.tensor([1.0, 4.0], dtype=torch.float8_e8m0fnu)
save("fp4/dcp", {"w": four, "w_scale": scales, "bias": full(5, 4)})
save_file({"w": four, "w_scale": scales, "bias": full(5, 4)}, HERE / "fp4" / "model.safetensors")

# Element types that shardmesh does not know, beside one that it does.
half = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).to(torch.complex32)
save("unknown_dtypes", {"half": half, "quantized": torch.quantize_per_tensor(full(1, 6), 0.5, 3, torch.quint8), "w": full(4, 2, 3)})

# More dimensions than shardmesh has.
save("nine_dimensions", {"a": torch.zeros(1, 1, 1, 1, 2, 1, 1, 1, 1), "w": torch.tensor([99], dtype=torch.uint8)})

# Views that PyTorch stores as they are, with a bit that says what they mean.
z = torch.tensor([1 + 2j, 3 - 4j])
views = {
    "conj": z.conj(),
    "neg": torch._neg_view(torch.tensor([0.0, 1.0, -2.0])),
    "neg_half": torch._neg_view(torch.tensor([0.5, -1.5], dtype=torch.bfloat16)),
    "neg_int": torch._neg_view(torch.tensor([-1, 0, 2**40])),
    "neg_byte": torch._neg_view(torch.tensor([0, 1, 255], dtype=torch.uint8)),
    "both": torch._neg_view(z.conj()),
    "wide": torch.arange(6).reshape(2, 3).to(torch.complex128).mul(1 + 1j).t().conj(),
}
save("views", {**views, "plain": full(1, 2)})
reference = {k: v.resolve_conj().resolve_neg().contiguous() for k, v in views.items() if k != "wide"}
save_file(reference, HERE / "views" / "reference.safetensors")

# Megatron-Core's classes, and a root and members of packages that nobody has. Only the names of the classes matter.
megatron = "megatron.core.dist_checkpointing.strategies.torch"


@dataclasses.dataclass
class MCoreMetadata(dcp.Metadata):
    mcore_data: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class MCoreSavePlan(dcp.SavePlan):
    mcore_data: dict = None


@dataclasses.dataclass
class RunMetadata(dcp.Metadata):
    notes: object = None


class Kind(enum.Enum):
    DENSE = 1


class Table(dict):
    pass


class Row(list):
    pass


class Note:
    def __init__(self, text):
        self.text, self.itself = text, self


for cls in (MCoreMetadata, MCoreSavePlan):
    belongs(cls, megatron)
for cls in (RunMetadata, Kind, Table, Row, Note):
    belongs(cls, "mylib.saving")

for name in ("megatron_root", "megatron_plans", "other_root"):
    kept = {}

    class Planner(dcp.DefaultSavePlanner):
        def create_global_plan(self, plans):
            kept["plans"] = plans
            return super().create_global_plan(plans)

    state = {"decoder.layers.qkv": torch.arange(24.0).reshape(6, 4), "embedding": full(8, 3), "step": 7}
    save(name, state, planner=Planner(flatten_state_dict=False))
    path = HERE / name / ".metadata"
    meta = pickle.loads(path.read_bytes())
    data = {"decoder.layers.qkv": {"nd_reformulated_orig_global_shape": (6, 4)}}
    if name == "megatron_root":
        meta = MCoreMetadata(mcore_data=data, **vars(meta))
    elif name == "megatron_plans":
        meta.mcore_data = data
        meta.all_local_plans = [MCoreSavePlan(items=p.items, mcore_data=data) for p in kept["plans"]]
    else:
        table, row = Table(a=1), Row([Kind.DENSE])
        table.more = row
        notes = [Note("x"), table, {1, 2}, frozenset("a"), b"bytes", bytearray(b"more"), 2**70, torch.device("cpu"),
                 complex(1, 2), torch.float32, torch.Size([3]), kept["plans"]]
        meta = RunMetadata(notes=notes, **vars(meta))
    path.write_bytes(pickle.dumps(meta))
