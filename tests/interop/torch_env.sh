#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/interop/torch_env.sh [VERSION]: makes a virtual environment with PyTorch (CPU use; 1.9 GB, about a
# minute) in ${XDG_CACHE_HOME:-~/.cache}/shardmesh, reuses it if it is there, and prints the path of its
# Python. Exits with 1, saying why, where it cannot be had.
set -euo pipefail
version=${1:-2.15.0}
home=${XDG_CACHE_HOME:-$HOME/.cache}/shardmesh/torch-$version
python=$home/bin/python
if [[ -f $home/complete ]]; then
  echo "$python"
  exit 0
fi
common=(typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec filelock numpy safetensors "setuptools<82" packaging)
case $version in
  2.3.* | 2.6.*) packages=("torch==$version" "numpy<2" safetensors "setuptools<82") flags=() ;;
  *) packages=("torch==$version" "${common[@]}" nvidia-cufile nvidia-cusparselt-cu13 nvidia-nvshmem-cu13) flags=(--no-deps) ;;
esac
[[ $version == 2.15.* ]] && packages+=(nvidia-nccl-cu13==2.30.7)
mkdir -p "$(dirname "$home")"
rm -rf "$home"
{
  python3 -m venv "$home" && "$python" -m pip install -q "${flags[@]}" "${packages[@]}" &&
    "$python" -c 'import torch.distributed.checkpoint, safetensors.torch'
} >"$home.log" 2>&1 || {
  echo "torch_env: PyTorch $version cannot be installed here; $home.log ends with: $(tail -1 "$home.log")" >&2
  exit 1
}
touch "$home/complete"
echo "$python"
