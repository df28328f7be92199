#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes hub/: models of several safetensors files as model hubs have them. Needs PyTorch and safetensors; run
once, the results are committed."""
import json
import pathlib

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent / "hub"


def put(path: str, tensors: dict) -> None:
    (here / path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, here / path)


def index(path: str, weight_map: dict, total_size: int) -> None:
    (here / path).write_text(json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}))


def full(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, float(value))


# The index maps a tensor away from a file that still has a stale copy, of another dtype and shape; "extra" is not listed.
put("stale/model-00001-of-00002.safetensors",
    {"up.weight": torch.zeros(6, 6, dtype=torch.bfloat16), "norm.weight": full(3, 6), "extra": full(9, 2)})
put("stale/model-00002-of-00002.safetensors", {"up.weight": full(4, 6, 2)})
index("stale/model.safetensors.index.json",
      {"up.weight": "model-00002-of-00002.safetensors", "norm.weight": "model-00001-of-00002.safetensors"}, 72)

# Another library's names, and a variant in half precision with its own index.
for suffix, kind, dtype, size in (("", "", torch.float32, 24), (".fp16", ".fp16", torch.float16, 12)):
    names = [f"unet-0000{i + 1}-of-00002{suffix}.safetensors" for i in range(2)]
    for i, name in enumerate(names):
        put(f"variant/{name}", {f"block.{i}.w": full(i + 1, 3).to(dtype)})
    index(f"variant/unet.safetensors.index{kind}.json", {f"block.{i}.w": name for i, name in enumerate(names)}, size)

# A listed tensor and a listed file that are not there.
put("missing/a-00001-of-00002.safetensors", {"here": full(1, 2)})
index("missing/model.safetensors.index.json",
      {"here": "a-00001-of-00002.safetensors", "gone": "a-00001-of-00002.safetensors",
       "lost": "a-00002-of-00002.safetensors"}, 24)
