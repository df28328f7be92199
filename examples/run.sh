#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# Sets a fresh machine up, builds the examples and runs the main job; arguments go to the job
# (--help lists them).
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/setup.sh run
[[ -f build/build.ninja ]] || meson setup build >build-setup.log 2>&1 || { cat build-setup.log; exit 1; }
rm -f build-setup.log
ninja -C build examples/hsdp_resume examples/shardmesh | tail -1
exec build/examples/hsdp_resume "$@"
