#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""install_tool.py TOOL BINDIR: run by `meson install`; copies the shardmesh tool to BINDIR if it was built."""
import os
import pathlib
import shutil
import sys

tool, bindir = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
if not tool.exists():
    sys.exit()
if bindir.is_absolute():
    target = pathlib.Path(os.environ.get("DESTDIR", "") + str(bindir))
else:
    target = pathlib.Path(os.environ["MESON_INSTALL_DESTDIR_PREFIX"]) / bindir
target.mkdir(parents=True, exist_ok=True)
# Beside its place, then exchanged: a tool that is running stays whole.
fresh = target / f".{tool.name}.{os.getpid()}"
shutil.copy(tool, fresh)
fresh.chmod(0o755)
os.replace(fresh, target / tool.name)
