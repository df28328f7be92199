#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
#
# tests/bare_machine.sh [--as root|sudo] [--keep DIR | --every-way] [COMMAND...]: runs the README's commands on a bare Debian 12: a
# tree that debootstrap makes, with nothing in it but the base system, certificates and this working tree; no CUDA.
# Needs root, debootstrap, and the right to mount; exits with 77 and says what is missing where it cannot be done.
#
#   --as sudo    as an ordinary user who may use sudo (the default); --as root: as root
#   --keep DIR   the tree is made in DIR, or found there, and stays; otherwise it is gone when this ends
#   --every-way  the commands (default: examples/run.sh and tests/run.sh --quick) twice, and in the opposite order twice, as a
#                user with sudo and as root: four trees, each made anew; all are tried, whatever fails
#   COMMAND      what to run, each in the clone, one after the other (default: "bash examples/run.sh")
#
# A command has done the whole work if it exits with 0, and says so: examples/run.sh that every state is bit-equal,
# tests/run.sh that nothing failed, with all rooms that it promises and as many tests each time, and that PyTorch has read what was
# saved, or cannot be installed and has left nothing. What the machine needs to reach its packages
# (apt's sources, proxies, certificates, pip's settings) comes along. All mounts are in a namespace of this script.
set -euo pipefail
top=$(realpath "$(dirname "$0")/..")
user=sudo keep= every_way=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --as) user=$2 ;;
    --keep) keep=$2 ;;
    --every-way) every_way=yes && shift && continue ;;
    *) echo "bare_machine: no option $1; the head of $0 lists them" >&2 && exit 2 ;;
  esac
  shift 2
done
if [[ -n $every_way ]]; then
  (($# > 0)) || set -- "bash examples/run.sh" "bash tests/run.sh --quick"
  reversed=()
  for command in "$@"; do reversed=("$command" "${reversed[@]}"); done
  worst=0
  for as in sudo root; do
    for order in forth back; do
      commands=("$@" "$@")
      [[ $order == forth ]] || commands=("${reversed[@]}" "${reversed[@]}")
      code=0
      bash "$0" --as $as "${commands[@]}" || code=$?
      echo "== every way: as $as, $order: exit $code"
      ((code == 0)) || worst=$code
    done
  done
  exit $worst
fi
(($# > 0)) || set -- "bash examples/run.sh"

skip() {
  echo "SKIP: no bare machine: $1"
  exit 77
}

# Outside of the namespace: the tree is made, and removed whatever happens; mounts are gone with the namespace.
if [[ -z ${BARE_MACHINE_TREE:-} ]]; then
  ((EUID == 0)) || skip "debootstrap and chroot need root"
  for tool in debootstrap chroot unshare; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || skip "no $tool here"
  done
  export PATH=$PATH:/usr/sbin:/sbin
  unshare --mount --pid --fork mount -t tmpfs none /mnt 2>/dev/null || skip "no right to mount in a namespace"
  if [[ -n $keep ]]; then
    mkdir -p "$keep"
    BARE_MACHINE_TREE=$(realpath "$keep")
  else
    BARE_MACHINE_TREE=$(mktemp -d /var/tmp/bare-machine.XXXXXX) && chmod 755 "$BARE_MACHINE_TREE" # it becomes /
    trap 'rm -rf --one-file-system "$BARE_MACHINE_TREE"' EXIT
    trap 'exit 1' INT TERM HUP
  fi
  export BARE_MACHINE_TREE
  code=0
  # In the background, so that a signal is heard at once: the processes inside end with the namespace.
  unshare --mount --propagation private --pid --fork --kill-child bash "$0" --as "$user" "$@" &
  inside=$!
  trap 'kill "$inside" 2>/dev/null; wait "$inside" || true; exit 1' INT TERM HUP
  wait "$inside" || code=$?
  exit $code
fi

tree=$BARE_MACHINE_TREE
codename=bookworm

# Where this machine gets the same Debian from, if it does; debootstrap knows a place otherwise.
mirror() {
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v name=$codename '$1 == name && $2 == "main" { print $3; exit }' || true
}

# The settings by which this machine reaches its packages.
carry_settings() {
  local file name value
  cp -L /etc/resolv.conf /etc/hosts "$tree/etc/" 2>/dev/null || true
  mkdir -p "$tree/etc/ssl" "$tree/usr/local/share"
  cp -rLf /etc/ssl/certs "$tree/etc/ssl/" 2>/dev/null || true
  cp -rLf /usr/local/share/ca-certificates "$tree/usr/local/share/" 2>/dev/null || true
  for file in /etc/pip.conf "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    [[ ! -f $file ]] || cat "$file" >>"$tree/etc/pip.conf"
  done
  if grep -qs "VERSION_CODENAME=$codename" /etc/os-release; then
    rm -f "$tree/etc/apt/sources.list"
    for file in sources.list sources.list.d trusted.gpg trusted.gpg.d keyrings preferences preferences.d; do
      [[ ! -e /etc/apt/$file ]] || cp -rL "/etc/apt/$file" "$tree/etc/apt/"
    done
    cp -rL /usr/share/keyrings "$tree/usr/share/" 2>/dev/null || true
  fi
  {
    apt-config dump 2>/dev/null | grep -E '^Acquire::(http|https|ftp|Check|Retries|Force)' || true
    for name in http https; do
      value=${name}_proxy
      [[ -z ${!value:-} ]] || echo "Acquire::$name::Proxy \"${!value}\";"
    done
  } >"$tree/etc/apt/apt.conf.d/90host"
  echo force-unsafe-io >"$tree/etc/dpkg/dpkg.cfg.d/unsafe-io" # the tree need not survive a power cut
}

make_tree() {
  [[ ! -f $tree/complete ]] || return 0
  local log=$tree/../$(basename "$tree").debootstrap.log from
  from=$(mirror)
  echo "== a bare Debian 12"
  if ! debootstrap --variant=minbase --include=ca-certificates,sudo $codename "$tree" $from >"$log" 2>&1; then
    tail -3 "$log" && rm -f "$log"
    skip "debootstrap cannot make one here"
  fi
  rm -f "$log"
  carry_settings
  chroot "$tree" useradd --create-home --shell /bin/bash someone
  echo 'someone ALL=(ALL) NOPASSWD: ALL' >"$tree/etc/sudoers.d/someone"
  touch "$tree/complete"
}

# The working tree as a clone would have it, with what is not committed yet.
clone_into() {
  local target=$1
  [[ ! -d $tree$target ]] || return 0
  mkdir -p "$tree$target"
  if git -c safe.directory="$top" -C "$top" rev-parse >/dev/null 2>&1; then
    git -c safe.directory="$top" -C "$top" ls-files -z --cached --others --exclude-standard |
      (cd "$top" && tar --null --files-from - --ignore-failed-read -cf - 2>/dev/null) | tar -C "$tree$target" -xf -
  else
    tar -C "$top" --exclude='./build*' -cf - . | tar -C "$tree$target" -xf -
  fi
}

# inside COMMAND: as the user, in the clone, with a login's environment and the settings of this machine.
inside() {
  local who=someone home=/home/someone path=/usr/local/bin:/usr/bin:/bin name carried=()
  [[ $user == sudo ]] || who=root home=/root path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  while read -r name; do carried+=("$name=${!name}"); done < <(compgen -e | grep -E '^(PIP_.*|.*_(proxy|PROXY)|SSL_CERT_.*|.*_CA_BUNDLE|SHARDMESH_.*)$')
  chroot --userspec=$who:$who "$tree" env -i "${carried[@]}" HOME=$home USER=$who LOGNAME=$who PATH=$path TERM=dumb LANG=C.UTF-8 \
    bash -c "cd $home/shardmesh && $1"
}

mount_all() {
  mount -t proc proc "$tree/proc"
  mount --rbind /sys "$tree/sys"
  mount --rbind /dev "$tree/dev"
  mount -t tmpfs -o mode=1777 shm "$tree/dev/shm"
}

# Has the suite interop passed, says the output in $1, or been skipped because PyTorch cannot be had here, with none of it left?
interop_is_told() {
  local left
  ! grep -qE '/ interop +OK ' "$1" || return 0
  grep -qE '^  .*g\+\+ interop[,:].* cannot be installed here' "$1" || { echo "no result of the suite interop" && return 1; }
  left=$(compgen -G "$tree$home/.cache/shardmesh/torch-*/") || return 0
  echo "PyTorch cannot be installed, and leaves ${left//$'\n'/, }"
  return 1
}

# Has a command that exited with 0 done the whole work? Its output is in $1.
complete() {
  local last g rooms
  last=$(tail -1 "$1")
  case $2 in
    *examples/run.sh*) [[ $last == *"Every resumed state is bit-equal to the state that was saved."* ]] ;;
    *tests/run.sh*)
      g=$(grep -oE '^g\+\+: [0-9]+ passed' "$1" | grep -oE '[0-9]+')
      [[ $last =~ ^[0-9]+\ passed,\ 0\ failed$ && -n $g ]] || return
      [[ -z ${passed[$2]:-} || ${passed[$2]} == "$g" ]] || { echo "g++: ${passed[$2]} tests passed before, now $g" && return 1; }
      passed[$2]=$g
      rooms=("$top"/tests/{core,layout,plan,memory,comm,mesh,tensor,state,optim,fsdp})
      [[ $2 == *--quick* ]] || rooms+=("$top/tests/checkpoint")
      ((g >= $(grep -rhE '^TEST_CASE' "${rooms[@]}" --include='*.cpp' --exclude='gpu_*' | wc -l))) ||
        { echo "g++: $g tests passed, fewer than the rooms have" && return 1; }
      [[ $2 == *--quick* ]] || interop_is_told "$1"
      ;;
  esac
}

[[ -w $tree ]] || skip "$tree cannot be written"
make_tree
home=/home/someone
[[ $user == sudo ]] || home=/root
clone_into $home/shardmesh
[[ $user == root ]] || chroot "$tree" chown -R someone:someone $home/shardmesh
mount_all
declare -A passed=()
number=0
for command in "$@"; do
  number=$((number + 1))
  echo "== $command (as $user)"
  start=$SECONDS code=0
  inside "$command" >"$tree/said-$number.log" 2>&1 </dev/null || code=$?
  tail -60 "$tree/said-$number.log"
  if ((code != 0)) || ! complete "$tree/said-$number.log" "$command"; then
    ((code != 0)) || code=1
    echo "bare machine: $command failed as $user (exit $code)"
    exit $code
  fi
  echo "== $command: the whole work, $((SECONDS - start)) s, $(du -shx "$tree" | cut -f1) on disk"
done
