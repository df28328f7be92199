#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# compile.sh DIR TARGET [-DOPTION=VALUE...]: sets DIR up (see configure.py), compiles TARGET in it, and says why if
# that fails. What the tests of an earlier build said is gone: it would count as what these say.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1 target=$2
shift 2
rm -f "$dir/meson-logs/testlog.json"
python3 tests/support/configure.py "$dir" "$@"
ninja -C "$dir" "$target" >"$dir/compile.log" 2>&1 || {
  grep -vE '^\[[0-9]+/[0-9]+\] (Compiling|Linking|Generating)' "$dir/compile.log" | head -200
  exit 1
}
