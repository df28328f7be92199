# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes optimizers/: what AdamW (PyTorch 2.11) leaves in DCP checkpoints of two small layers, in the kinds
of values that people have, with what PyTorch's own next two steps come to (expected.json), and
plain/: plain values that are nested, and numbers of numpy.
Run with PyTorch and numpy installed: python make_optimizers.py"""
import json
import math
import os
import shutil
import warnings

import numpy
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

warnings.simplefilter("ignore")
here = os.path.dirname(os.path.abspath(__file__))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = torch.nn.Linear(4, 5)
        self.l2 = torch.nn.Linear(5, 3)


def step(net, optimizer, number):
    """Gradients that any program can make: a ramp, scaled by the step."""
    optimizer.zero_grad()
    for parameter in net.parameters():
        if parameter.requires_grad:
            ramp = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
            parameter.grad = (ramp - 3) / (4.0 * number)
    optimizer.step()


def weights_and_biases(net):
    return [[p for n, p in net.named_parameters() if n.endswith(kind)] for kind in ("weight", "bias")]


def save(name, net, optimizer, **options):
    path = f"{here}/optimizers/{name}"
    state = get_optimizer_state_dict(net, optimizer, options=StateDictOptions(**options))
    dcp.save({"model": net.state_dict(), "optim": state}, checkpoint_id=path, no_dist=True)


expected = {}


def go_on(name, net, optimizer):
    for number in (3, 4):
        step(net, optimizer, number)
    expected[name] = {n: p.detach().flatten().tolist() for n, p in net.named_parameters()}


def case(name, groups=None, change=None, goes_on=True, **options):
    torch.manual_seed(3)
    net = Net()
    optimizer = torch.optim.AdamW(groups(net) if groups else net.parameters(), **{"lr": 0.01, **options})
    for number in (1, 2):
        step(net, optimizer, number)
    if change:
        change(net, optimizer)
    save(name, net, optimizer)
    if goes_on:
        go_on(name, net, optimizer)


def int_step(net, optimizer):
    for state in optimizer.state.values():
        state["step"] = int(state["step"])


def schedule(net, optimizer):
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)


def foreign(net, optimizer):
    group = optimizer.param_groups[0]
    group["name"] = "all"
    group["layers"] = [{"lr_scale": 0.5}, {"lr_scale": 1, "tags": ["a", "b"]}]
    group["fused"] = False


def set_option(**options):
    def change(net, optimizer):
        optimizer.param_groups[0].update(options)
    return change


shutil.rmtree(here + "/optimizers", ignore_errors=True)
shutil.rmtree(here + "/plain", ignore_errors=True)
case("plain")
case("groups", lambda net: [{"params": weights_and_biases(net)[1], "weight_decay": 0.0},
                            {"params": weights_and_biases(net)[0][::-1], "weight_decay": 0.1}])
case("lr_tensor", change=set_option(lr=torch.tensor(0.02)))
case("lr_numpy", change=set_option(lr=numpy.float64(0.5 * 0.01 * (1 + math.cos(0.3 * math.pi)))))
case("betas_list", betas=[0.9, 0.95])
# These three were written by PyTorch 2.15.
pair = [torch.tensor(0.5), torch.tensor(0.75)]
case("betas_list_of_tensors", change=set_option(betas=pair), goes_on=False)
case("betas_tuple_of_tensors", change=set_option(betas=tuple(pair)), goes_on=False)
case("mask", change=set_option(mask=torch.tensor([1.0, 0.0, 1.0]), initial_lr=0.02), goes_on=False)
case("int_step", change=int_step, goes_on=False)
case("initial_lr", change=schedule)
case("foreign", change=foreign)
case("empty_group", lambda net: [{"params": [], "lr": 0.001},
                                 {"params": list(net.parameters()), "weight_decay": 0.3}])

# The same without nesting, with a schedule.
torch.manual_seed(3)
net = Net()
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
for number in (1, 2):
    step(net, optimizer, number)
schedule(net, optimizer)
save("flattened", net, optimizer, flatten_optimizer_state_dict=True)
go_on("flattened", net, optimizer)

# The second layer never had a gradient; the first one was frozen after training.
torch.manual_seed(3)
net = Net()
net.l2.requires_grad_(False)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
step(net, optimizer, 1)
net.l2.requires_grad_(True)
state = {"param_groups": [{k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
                          | {"params": [n for n, _ in net.named_parameters()]}],
         "state": {n: optimizer.state[p] for n, p in net.named_parameters() if p in optimizer.state}}
dcp.save({"model": net.state_dict(), "optim": state}, checkpoint_id=here + "/optimizers/no_grad", no_dist=True)
case("frozen_later", change=lambda net, optimizer: net.l1.requires_grad_(False))
json.dump(expected, open(here + "/optimizers/expected.json", "w"))

# Containers, which DCP stores element by element, and numbers of numpy.
numbers = {kind: numpy.dtype(kind).type(7) for kind in
           ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32")}
dcp.save({
    "list": [{"k": 1}, {"k": [2, 3]}],
    "deep": {"a": [{"b": {"c": 1.5, "d": [[1, 2], [{"e": None}]]}}, 7, {}], "tuple": (1, (2, "x")), "empty": []},
    "scalar": torch.tensor(0.75), "count": torch.tensor(5), "ready": True, "half": 0.5, "steps": 3,
    "numpy": {**numbers, "float64": numpy.float64(0.1), "bool_": numpy.bool_(True),
              "negative": numpy.int64(-2**63), "big": numpy.uint64(2**63), "swapped": numpy.dtype(">f8").type(0.1),
              "complex64": numpy.complex64(1 + 2j), "str_": numpy.str_("text"),
              "inside": (numpy.float32(0.5), [numpy.int32(-1)])},
}, checkpoint_id=here + "/plain", no_dist=True)
