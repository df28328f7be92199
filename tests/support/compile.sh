#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# compile.sh DIR TARGET [-DOPTION=VALUE...]: sets DIR up (see configure.py), compiles TARGET in it, and says why if
# that fails. Without options DIR is set up already, and what it runs meanwhile is left alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1 target=$2
shift 2
(($# == 0)) || python3 tests/support/configure.py "$dir" "$@"
ninja -C "$dir" "$target" >"$dir/compile-$target.log" 2>&1 || {
  grep -vE '^\[[0-9]+/[0-9]+\] (Compiling|Linking|Generating)' "$dir/compile-$target.log" | head -200
  exit 1
}
