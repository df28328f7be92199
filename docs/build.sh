#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# docs/build.sh [DIRECTORY]: builds the site (guide, reference, reliability, files, decisions, performance) in DIRECTORY/html,
# build-site by default. Needs Doxygen (apt-get install doxygen) and Python. Fails if Doxygen has anything to complain of.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build-site}
command -v doxygen >/dev/null || { echo "SKIP: no doxygen here: apt-get install doxygen" && exit 77; }
mkdir -p "$out"
rm -rf "$out/html" "$out/xml"
python3 docs/site/pages.py "$out/pages"
version=$(sed -nE 's/.*SHARDMESH_VERSION_STRING "(.*)"/\1/p' include/shardmesh/core/config.hpp)
{
  cat docs/site/Doxyfile
  echo "INPUT = $out/pages include/shardmesh"
  echo "USE_MDFILE_AS_MAINPAGE = $out/pages/README.md"
  echo "OUTPUT_DIRECTORY = $out"
  echo "PROJECT_NUMBER = $version"
} >"$out/Doxyfile"
doxygen "$out/Doxyfile" 2>"$out/warnings"
cp -r "$out/pages/files" "$out/html/"
python3 docs/site/mend.py "$out/html"
if [[ -s $out/warnings ]]; then
  cat "$out/warnings" >&2
  exit 1
fi
echo "$out/html/index.html"
