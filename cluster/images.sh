#!/bin/bash
# Builds images with buildah, in the root file system of the node: images.sh COMMAND [ARGUMENT]...
set -euo pipefail
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=overlay HOME=/root
# Those of the machine name folders that do not exist here.
unset TMPDIR XDG_RUNTIME_DIR XDG_CACHE_HOME REGISTRY_AUTH_FILE

# The storage outlives this script: remove the container that a command works with, also if it fails.
container=
remove_container() {
  [ -z "$container" ] || buildah rm "$container" > /dev/null || true
}
trap remove_container EXIT

# Commits the container and names the image.
commit() { # NAME
  buildah commit --quiet "$container" "$1" > /dev/null
}

case $1 in
  # from-folder NAME FOLDER [OPTION OF buildah config]...: an image with the content of a folder.
  from-folder)
    name=$2 folder=$3
    shift 3
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$folder" / > /dev/null
    [ $# = 0 ] || buildah config "$@" "$container"
    commit "$name"
    ;;
  # add NAME BASE FILE TARGET: an image with one more file.
  add)
    container=$(buildah from --pull=never "$3")
    buildah add --quiet --chmod 755 "$container" "$4" "$5" > /dev/null
    buildah config --entrypoint '[]' "$container"
    commit "$2"
    ;;
  # build NAME: the Dockerfile in /context, with the network and the certificates of the machine.
  build)
    certificates=()
    [ ! -d /machine/certs ] || certificates=(--volume /machine/certs:/etc/ssl/certs:ro)
    # Containers get the limits of this process, which may not be allowed to raise its own.
    limits=(--ulimit "nofile=$(ulimit -Sn):$(ulimit -Hn)")
    [ "$(ulimit -u)" = unlimited ] || limits+=(--ulimit "nproc=$(ulimit -Su):$(ulimit -Hu)")
    # --layers: a step whose input did not change is taken from the previous build.
    buildah build --pull=never --layers --network host --format oci "${limits[@]}" "${certificates[@]}" \
      --volume /machine/resolv.conf:/etc/resolv.conf:ro --volume /machine/npmrc:/usr/local/etc/npmrc:ro \
      --tag "$2" --file /context/Dockerfile /context
    ;;
  # exists NAME
  exists)
    buildah inspect --type image "$2" > /dev/null 2>&1
    ;;
  # save NAME FILE: the image as one file, which `ctr images import` reads.
  save)
    rm -f "$3"
    buildah push --quiet "$2" "oci-archive:$3:$2"
    ;;
  # extract NAME FOLDER: the files of the image.
  extract)
    container=$(buildah from --pull=never "$2")
    cp -a "$(buildah mount "$container")/." "$3"
    ;;
  # prune: removes what no name refers to.
  prune)
    buildah prune --force > /dev/null
    ;;
  *)
    echo "images.sh: unknown command $1" >&2
    exit 2
    ;;
esac
