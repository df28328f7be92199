# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes dense_training.json: 20 steps of the Dense model under torch.optim.Adam, one process, the whole batch
at once. Run with PyTorch installed: python make_dense_training.py >dense_training.json

Parameters and batches come from a generator that tests/support/dense_training.hpp has too: the seed is the
32-bit FNV-1a hash of a name, x <- 1664525 x + 1013904223 (mod 2^32), and a value is the upper 24 bits of x,
scaled exactly to [-1, 1). A parameter is a quarter of such values; an input is such values, its target half of
each row reversed."""
import json
import sys

import torch

STEPS, ROWS, OPTIONS = 20, 12, {"lr": 0.01}


def values(name, count):
    x = 2166136261
    for byte in name.encode():
        x = (x ^ byte) * 16777619 % 2**32
    result = []
    for _ in range(count):
        x = (1664525 * x + 1013904223) % 2**32
        result.append(((x >> 8) - 2**23) / 2**23)
    return result


class Dense(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear, sequence, relu = torch.nn.Linear, torch.nn.Sequential, torch.nn.ReLU
        self.net1 = sequence(linear(8, 16), relu())
        self.net2 = sequence(linear(16, 32), relu())
        self.net3 = sequence(linear(32, 64), relu())
        self.net4 = sequence(relu(), linear(64, 8))

    def forward(self, x):
        return self.net4(self.net3(self.net2(self.net1(x))))


def train(dtype):
    model = Dense().to(dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(values(name, parameter.numel()), dtype=dtype).view_as(parameter) / 4)
    optimizer = torch.optim.Adam(model.parameters(), foreach=False, **OPTIONS)
    losses = []
    for step in range(STEPS):
        x = torch.tensor(values(f"batch {step}", ROWS * 8), dtype=dtype).view(ROWS, 8)
        loss = torch.nn.functional.mse_loss(model(x), x.flip(1) / 2)  # the mean over all 96 numbers
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, dict(model.named_parameters())


losses, weights = train(torch.float32)
exact_losses, exact_weights = train(torch.float64)
for name, value in weights.items():  # how much of what is written is rounding
    error = (value.double() - exact_weights[name]).abs()
    print(f"{name}: worst {(error / exact_weights[name].abs()).max():.1e} of the value,",
          f"{error.max() / value.abs().max():.1e} of the largest", file=sys.stderr)
print(f"losses: {max(abs(a / b - 1) for a, b in zip(losses, exact_losses)):.1e}", losses[0], losses[-1], file=sys.stderr)
print(json.dumps({"torch": torch.__version__, "options": OPTIONS, "rows": ROWS,
                  "losses": [float(f"{x:.9g}") for x in losses],
                  "weights": {name: [float(f"{x:.9g}") for x in value.detach().flatten().tolist()]
                              for name, value in weights.items()}}))
