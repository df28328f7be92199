#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes complex.safetensors beside each fixture with tensors that reference.safetensors lacks (complex
ones, which the Python package could not write), as torch.distributed.checkpoint.load gives them in full.
Needs PyTorch; run once, the results are committed."""
import json
import pathlib
import struct

import torch
import torch.distributed.checkpoint as dcp

for directory in sorted(pathlib.Path(__file__).parent.glob("checkpoints/*/checkpoint")):
    if not (directory / ".metadata").exists():
        continue
    known = (directory.parent / "reference.safetensors").read_bytes()
    known = json.loads(known[8 : 8 + struct.unpack("<Q", known[:8])[0]])
    metadata = dcp.FileSystemReader(directory).read_metadata().state_dict_metadata
    missing = {k: v for k, v in metadata.items() if hasattr(v, "size") and k not in known}
    if not missing:
        continue
    state = {k: torch.zeros(v.size, dtype=v.properties.dtype) for k, v in missing.items()}
    dcp.load(state, checkpoint_id=str(directory), no_dist=True)
    names = {torch.complex64: "C64"}
    header, data = {}, b""
    for key, tensor in sorted(state.items()):
        raw = tensor.numpy().tobytes()
        header[key] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (directory.parent / "complex.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    print(directory.parent.name, sorted(state))
