# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes optim.json: 20 steps of PyTorch's optimizers, all from the same start with the same gradients.
Run with PyTorch installed: python make_optim.py >optim.json"""
import json

import torch

SHAPES = {"weight": (7, 3), "bias": (2,)}
CASES = [  # optimizer, and for each group its options and parameters
    ("Adam", [({"lr": 0.1}, ["weight", "bias"])]),
    ("Adam", [({"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}, ["weight", "bias"])]),
    ("Adam", [({"lr": 0.02, "betas": (0.4, 0.9), "amsgrad": True, "maximize": True}, ["weight", "bias"])]),
    ("Adam", [({"lr": 0.1}, ["bias"]), ({"lr": 0.01, "weight_decay": 0.5}, ["weight"])]),
    ("AdamW", [({}, ["weight", "bias"])]),
    ("AdamW", [({"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}, ["weight"]), ({"lr": 0.1}, ["bias"])]),
    ("SGD", [({"lr": 0.1}, ["weight", "bias"])]),
    ("SGD", [({"lr": 0.03, "weight_decay": 0.1, "maximize": True}, ["weight", "bias"])]),
    ("SGD", [({"lr": 0.03, "momentum": 0.9}, ["weight", "bias"])]),
    ("SGD", [({"lr": 0.02, "momentum": 0.8, "dampening": 0.4, "weight_decay": 0.2}, ["weight", "bias"])]),
    ("SGD", [({"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, ["weight"]),
             ({"lr": 0.2}, ["bias"])]),
]

torch.manual_seed(5)
start = {name: torch.randn(shape) for name, shape in SHAPES.items()}
gradients = [{name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(20)]


def numbers(tensor):
    """The shortest decimals that are the same float32."""
    return [float(f"{x:.9g}") for x in tensor.detach().flatten().tolist()]


def run(optimizer, groups):
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    one = getattr(torch.optim, optimizer)(
        [{"params": [(name, parameters[name]) for name in names], **options} for options, names in groups], foreach=False)
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = gradient[name].clone()
        one.step()
    state = {name: {key: numbers(value) for key, value in one.state[parameter].items() if value is not None}
             for name, parameter in parameters.items()}
    # In the order of the defaults, which PyTorch writes unless a group's dict names some of them first. foreach
    # was set only to choose the plain implementation.
    written = [[[key, repr(None if key == "foreach" else group[key])] for key in one.defaults]
               for group in one.state_dict()["param_groups"]]
    return {"optimizer": optimizer, "groups": [{"options": o, "parameters": p} for o, p in groups],
            "final": {name: numbers(parameter) for name, parameter in parameters.items()},
            "state": state, "param_groups": written}


print(json.dumps({
    "torch": torch.__version__, "shapes": SHAPES, "start": {name: numbers(value) for name, value in start.items()},
    "gradients": [{name: numbers(value) for name, value in one.items()} for one in gradients],
    "cases": [run(*case) for case in CASES],
}))
