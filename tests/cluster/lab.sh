#!/usr/bin/env bash
# One machine of a lab on this machine: namespaces of its own for network, processes, mounts and names. Run inside of
# them, as their first process. What it changes goes with it; no process outside can be seen from within.
#   lab.sh laptop DIR NODES [KEEP ...]     the laptop, and the network that joins it to the nodes
#   lab.sh node DIR NUMBER VENV [KEEP ...] a node with sshd, an empty home, and its own copy on write of the Python environment
# DIR is the lab's, seen by all; KEEP are folders that stay visible although they may lie below /tmp.
set -euo pipefail
role=$1 lab=$2 number=$3
shift 3

own_tmp() {  # an empty /tmp, in which the folders named stay
  local path
  for path in "$lab" "$@"; do
    [[ $path == /tmp/* ]] || continue
    mkdir -p "/run/kept$path"
    mount --bind "$path" "/run/kept$path"
  done
  mkdir -p "$lab/$(hostname)/tmp"
  mount --bind "$lab/$(hostname)/tmp" /tmp
  chmod 1777 /tmp
  for path in "$lab" "$@"; do
    [[ $path == /tmp/* ]] || continue
    mkdir -p "$path"
    mount --bind "/run/kept$path" "$path"
  done
}

laptop() {
  hostname laptop
  mount -t tmpfs tmpfs /run
  mkdir -p "$lab/laptop/home"
  ip link set lo up
  ip link add lab type bridge
  ip addr add 10.77.0.254/24 dev lab
  ip link set lab up
  for i in $(seq "$number"); do
    ip netns add "node$i"
    ip link add "node$i" type veth peer name eth0 netns "node$i"
    ip link set "node$i" master lab
    ip -n "node$i" addr add "10.77.0.$i/24" dev eth0
    ip -n "node$i" link set eth0 up
    ip -n "node$i" link set lo up
    ip -n "node$i" route add default via 10.77.0.254     # leads nowhere; Ray takes the address of this way as the node's
  done
  own_tmp "$@"
  touch "$lab/laptop/ready"
  exec sleep infinity
}

node() {
  local venv=$1 home=$lab/home own=/run/node$number
  shift
  hostname "node$number"
  mount -t tmpfs -o size=2g tmpfs /dev/shm
  mkdir -p "$own/upper" "$own/work" "$lab/node$number/home" "$home"
  mount -t overlay overlay -o "lowerdir=$venv,upperdir=$own/upper,workdir=$own/work" "$venv"
  own_tmp "$venv" "$@"
  mount --bind "$lab/node$number/home" "$home"     # one path on all nodes, another folder on each
  mkdir -p "$home/.config/pip"
  touch "$home/.bashrc"
  sed "s|^root:.*|root:x:0:0:root:$home:/bin/bash|" /etc/passwd > "$own/passwd"
  mount --bind "$own/passwd" /etc/passwd
  ln -sfn "$venv" "$home/sbbridge-env"     # made before, with all packages: no downloads
  # pip reads no-build-isolation the wrong way round: false is without
  printf '[install]\nno-index = true\nno-build-isolation = false\n' > "$home/.config/pip/pip.conf"
  mkdir -p /run/sshd
  /usr/sbin/sshd -D -f "$lab/sshd_config" -E "$lab/node$number/sshd.log" &
  wait     # a first process that is bash buries the orphans that Ray leaves
}

"$role" "$@"
