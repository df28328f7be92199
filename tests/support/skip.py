#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""skip.py REASON: stands in for a test that cannot be built here, so that it is counted and its reason read."""
import sys

print(f"SKIP: {sys.argv[1]}")
sys.exit(77)
