#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes tiny_llama/: a model in two safetensors files with an index, named, shaped and stored (bfloat16) as the hub's models
are. Element i of the k-th tensor, in the order of the names, is ((7 i + k) mod 256 - 128) / 1024, which bfloat16 has exactly.
Run once, the result is committed."""
import json
import pathlib
import struct

HIDDEN, MLP, VOCABULARY, LAYERS = 16, 40, 48, 2
HERE = pathlib.Path(__file__).with_name("tiny_llama")

shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN]}
for layer in range(LAYERS):
    for part in "qkvo":
        shapes[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = [HIDDEN, HIDDEN]
    shapes |= {f"model.layers.{layer}.mlp.{name}_proj.weight": [MLP, HIDDEN] for name in ("gate", "up")}
    shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = [HIDDEN, MLP]
    shapes |= {f"model.layers.{layer}.{name}_layernorm.weight": [HIDDEN] for name in ("input", "post_attention")}


def elements(k: int, shape: list[int]) -> bytes:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = [((7 * i + k) % 256 - 128) / 1024 for i in range(count)]
    return b"".join(struct.pack("<f", value)[2:] for value in values)  # the upper half of a float


weight_map = {}
names = sorted(shapes)
HERE.mkdir(exist_ok=True)
for part, chosen in enumerate(([n for n in names if ".layers.1." not in n], [n for n in names if ".layers.1." in n]), 1):
    file = f"model-0000{part}-of-00002.safetensors"
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name in chosen:
        data = elements(names.index(name), shapes[name])
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [len(body), len(body) + len(data)]}
        body += data
        weight_map[name] = file
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (HERE / file).write_bytes(struct.pack("<Q", len(text)) + text + body)
total = 2 * sum(s[0] * (s[1] if len(s) > 1 else 1) for s in shapes.values())
(HERE / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=1) + "\n")
