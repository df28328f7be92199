#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/interop/torch_env.sh [VERSION]: makes a virtual environment with PyTorch (CPU use) in
# ${XDG_CACHE_HOME:-~/.cache}/shardmesh, reuses it if it is there, and prints the path of its Python. PyTorch's
# own libraries alone (1.9 GB, about a minute) do where the system has those of CUDA; elsewhere those that PyTorch
# asks for come along (5 GB). Exits with 1, saying why and leaving nothing but a log, where it cannot be had.
set -euo pipefail
version=${1:-2.15.0}
home=${XDG_CACHE_HOME:-$HOME/.cache}/shardmesh/torch-$version
python=$home/bin/python
mkdir -p "$(dirname "$home")"
exec 9>"$home.lock"
flock 9 # two runs at once make one environment
if [[ -f $home/complete ]]; then
  echo "$python"
  exit 0
fi

own=("torch==$version" safetensors "setuptools<82")
case $version in
  2.3.* | 2.6.*) own+=("numpy<2") alone=() ;;
  *)
    own+=(numpy packaging)
    alone=("${own[@]}" typing_extensions sympy mpmath networkx jinja2 markupsafe fsspec filelock
      nvidia-cufile nvidia-cusparselt-cu13 nvidia-nvshmem-cu13)
    ;;
esac
[[ $version == 2.15.* ]] && alone+=(nvidia-nccl-cu13==2.30.7)

pip() { "$python" -m pip install -q --no-cache-dir "$@"; }
works() { "$python" -c 'import torch.distributed.checkpoint, safetensors.torch'; }
install() {
  python3 -m venv "$home" || return
  if ((${#alone[@]} > 0)) && pip --no-deps "${alone[@]}" && works; then
    return
  fi
  pip "${own[@]}" && works
}
# Whatever ends this script: an environment is complete, or gone.
trap '[[ -f $home/complete ]] || rm -rf "$home"' EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$home"
if ! install >"$home.log" 2>&1; then
  echo "torch_env: PyTorch $version cannot be installed here; $home.log ends with: $(tail -1 "$home.log")" >&2
  exit 1
fi
touch "$home/complete"
echo "$python"
