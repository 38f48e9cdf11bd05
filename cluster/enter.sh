#!/bin/sh
# Runs COMMAND in the root file system ROOTFS, which stays unchanged; run it in a mount namespace of its own:
#   unshare --mount --propagation private enter.sh ROOTFS WORK [SOURCE=TARGET]... -- COMMAND [ARGUMENT]...
# WORK is an empty folder. Each SOURCE of the machine appears as TARGET. Every mount ends with the namespace.
set -eu
rootfs=$1
work=$2
shift 2

mount -t tmpfs -o mode=755 tmpfs "$work"
root=$work/root
mkdir "$work/upper" "$work/overlay" "$root"
mount -t overlay -o "lowerdir=$rootfs,upperdir=$work/upper,workdir=$work/overlay" overlay "$root"
cd "$root"
mkdir -p proc sys dev run tmp old

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
for device in null zero full random urandom tty kmsg fuse; do
  [ -e "/dev/$device" ] || continue
  : > "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

while [ "$1" != -- ]; do
  source=${1%%=*}
  target=$root${1#*=}
  if [ -d "$source" ]; then
    mkdir -p "$target"
  else
    mkdir -p "${target%/*}"
    : > "$target"
  fi
  mount --bind "$source" "$target"
  shift
done
shift

pivot_root . old
cd /
umount -l /old
rmdir /old
exec "$@"
