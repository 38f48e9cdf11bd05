#!/bin/sh
# Starts the node in control groups and namespaces of its own: launch.sh GROUPS COMMAND [ARGUMENT]...
# The file GROUPS lists what must be undone after the node has ended: the path of each group, and -CONTROLLER for each
# controller that is enabled at the root for the node.
set -eu
groups=$1
shift

create_group() { # PARENT
  # Nodes of other cache folders may have groups there as well.
  group=$(mktemp -d "$1/reverse-tunnel-cluster-XXXXXX")
  echo "$group" >> "$groups"
}

: > "$groups"
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  # Version 2. At the root, because only the root may have processes and give its controllers to other groups.
  enabled=" $(cat /sys/fs/cgroup/cgroup.subtree_control) "
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    case $enabled in *" $controller "*) continue ;; esac
    if echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; then
      echo "-$controller" >> "$groups"
    else
      echo "no controller $controller" >&2
    fi
  done
  create_group /sys/fs/cgroup
  echo $$ > "$group/cgroup.procs"
else
  # Version 1. Below the group of the caller, so that its limits apply.
  while IFS=: read -r _ controllers path; do
    [ -n "$controllers" ] || continue
    hierarchy=/sys/fs/cgroup/${controllers#name=}
    [ -d "$hierarchy" ] || continue
    parent=$hierarchy$path
    # A container may see the hierarchy from its own group on, without the groups above.
    [ -d "$parent" ] || parent=$hierarchy
    create_group "$parent"
    # A group of cpuset takes no process until it has CPUs and memory nodes.
    if [ -e "$group/cpuset.cpus" ]; then
      cat "$parent/cpuset.cpus" > "$group/cpuset.cpus"
      cat "$parent/cpuset.mems" > "$group/cpuset.mems"
    fi
    echo $$ > "$group/cgroup.procs"
  done < /proc/self/cgroup
fi

exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child --propagation private "$@"
