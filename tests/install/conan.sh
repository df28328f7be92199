#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# Puts Conan where tests/install/consume.py looks for it, from where pip gets its packages; says so where it cannot.
kept=~/.cache/shardmesh/conan
[[ -x $kept/bin/conan ]] || command -v conan >/dev/null && exit 0
{ python3 -m venv "$kept" && "$kept/bin/pip" install -q 'conan>=2,<3'; } >/dev/null 2>&1 && exit 0
rm -rf "$kept"
echo "SKIP: pip cannot install conan here"
exit 77
