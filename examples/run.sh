#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# Sets a fresh machine up, builds the examples and runs the main job; arguments go to the job
# (--help lists them).
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/setup.sh run
options=(-Dexamples=enabled)
# A build directory that is there keeps how it compiles; a new one compiles as tests/run.sh does, which goes on in it.
[[ -f build/build.ninja ]] || options+=(-Doptimization=1 -Ddebug=false)
bash tests/support/compile.sh build main-job "${options[@]}"
exec build/examples/hsdp_resume "$@"
