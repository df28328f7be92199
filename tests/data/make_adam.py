# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes adam.json: 20 steps of torch.optim.Adam. Run with PyTorch installed: python make_adam.py >adam.json"""
import json

import torch

torch.manual_seed(5)
cases = []
for options in ({"lr": 0.1}, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}):
    weight = torch.randn(7, 3)
    start = weight.clone()
    parameter = torch.nn.Parameter(weight)
    adam = torch.optim.Adam([parameter], foreach=False, **options)
    gradients = [torch.randn(7, 3) for _ in range(20)]
    for gradient in gradients:
        parameter.grad = gradient.clone()
        adam.step()
    state = adam.state[parameter]
    cases.append({"options": options, "torch": torch.__version__, "start": start.flatten().tolist(),
                  "gradients": [g.flatten().tolist() for g in gradients],
                  "weight": parameter.detach().flatten().tolist(),
                  "exp_avg": state["exp_avg"].flatten().tolist(),
                  "exp_avg_sq": state["exp_avg_sq"].flatten().tolist(), "step": state["step"].item()})
print(json.dumps(cases))
