#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""jax_redistribute.py RANKS SIDE...: what moving a float32 matrix to other shardings takes with JAX, in the cases of
bench/redistribute.cpp that it has (all but those with partial values), on RANKS devices of one process. One JSON line a case:
wall_ms, the median time from the call until the result is there; wrong, whether it is another matrix than the source."""
import json
import os
import statistics
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RANKS = int(sys.argv[1])
CASES = ("S0->R", "S1->R", "S0->S1", "R->S0", "R,S0->R,R", "S0,S1->R,R", "S0,S0->R,R", "S0,S1->S1,S0", "R,S0->S0,S0",
         "S0,R->R,S0")


def spec(words, names):
    """Which mesh dimensions cut which dimension of the matrix."""
    cuts = [tuple(name for word, name in zip(words, names) if word == f"S{dim}") for dim in (0, 1)]
    return PartitionSpec(*[cut or None for cut in cuts])


def main():
    devices = np.array(jax.devices()[:RANKS])
    if len(devices) < RANKS:
        sys.exit(f"JAX has {len(devices)} devices, {RANKS} are wanted")
    line = Mesh(devices, ("x",))
    plane = Mesh(devices.reshape((2, RANKS // 2) if RANKS >= 4 else (1, RANKS)), ("y", "x"))
    random = np.random.default_rng(7)
    for side in map(int, sys.argv[2:]):
        whole = random.integers(0, 1 << 16, (side, side)).astype(np.float32)
        for name in CASES:
            before, after = (half.split(",") for half in name.split("->"))
            mesh = line if len(before) == 1 else plane
            source = jax.device_put(whole, NamedSharding(mesh, spec(before, mesh.axis_names)))
            target = NamedSharding(mesh, spec(after, mesh.axis_names))
            move = jax.jit(lambda x: x, out_shardings=target)
            got = move(source)
            wrong = 0 if bool(jnp.array_equal(got, source)) and got.sharding.is_equivalent_to(target, 2) else 1
            del got
            times = []
            for run in range(-4, 15):
                start = time.perf_counter()
                move(source).block_until_ready()
                if run >= 0:
                    times.append(time.perf_counter() - start)
            print(json.dumps({"case": name, "side": side, "wall_ms": statistics.median(times) * 1e3, "wrong": wrong}),
                  flush=True)
            del source


main()
