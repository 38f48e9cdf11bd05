#!/bin/bash
# The first process of the node's namespaces: starts Kubernetes and waits. Everything ends with it.
# /node contains what node.ts and node-files.ts have written. /node/ready appears once the node is Ready, /node/failed
# if it cannot be.
set -u
cd /node || exit
mkdir -p logs
ADDRESS=$1
export PATH=/opt/control-plane:/opt/cluster:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
kubectl() {
  command kubectl --kubeconfig=/node/admin.kubeconfig "$@"
}

fail() {
  echo "$*" > failed
  exit 1
}

# Starts a program of the node; its output is the file logs/NAME.log.
declare -A programs
start() { # NAME COMMAND...
  local name=$1
  shift
  "$@" > "logs/$name.log" 2>&1 &
  programs[$name]=$!
}

# Waits until a command succeeds, and fails at once if a program has ended meanwhile. All of them run until the node
# ends, so the limit is only met if one of them hangs: a busy machine needs much longer than the usual 5 s.
await() { # WHAT COMMAND...
  local what=$1 end=$((SECONDS + 240)) name
  shift
  until "$@" > /dev/null 2>&1; do
    for name in "${!programs[@]}"; do
      kill -0 "${programs[$name]}" 2> /dev/null || fail "$what: $name has ended: $(tail -n 1 "logs/$name.log")"
    done
    [ $SECONDS -lt $end ] || fail "$what after 240 s"
    sleep 0.1
  done
}

mount --make-rshared /
echo node > /proc/sys/kernel/hostname

# The hierarchies of control groups, as this namespace sees them: with the groups of the node at the root.
if [ -s cgroup2 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup || fail 'cannot mount cgroup2'
  # Only groups without processes delegate controllers.
  mkdir /sys/fs/cgroup/init
  while read -r pid; do echo "$pid" > /sys/fs/cgroup/init/cgroup.procs; done < /sys/fs/cgroup/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || fail "cannot delegate the controller $controller"
  done
else
  mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup || fail 'cannot mount a tmpfs'
  while IFS=: read -r _ controllers _; do
    [ -n "$controllers" ] || continue
    folder=/sys/fs/cgroup/${controllers#name=}
    options=$controllers
    [ "${controllers#name=}" = "$controllers" ] || options=none,$controllers
    mkdir "$folder"
    mount -t cgroup -o "$options" cgroup "$folder" || fail "cannot mount the cgroup hierarchy $controllers"
  done < /proc/self/cgroup
fi

# The kubelet sets these for the whole machine unless they have the values that it wants: show it these values.
mkdir tunables
while read -r name value; do
  echo "$value" > "tunables/$name"
  mount --bind "tunables/$name" "/proc/sys/${name//.//}" || fail "cannot cover $name"
done <<'VALUES'
vm.overcommit_memory 1
vm.panic_on_oom 0
kernel.panic 10
kernel.panic_on_oops 1
kernel.keys.root_maxkeys 1000000
kernel.keys.root_maxbytes 25000000
VALUES

# The network: loopback, and a pair of links that carries the address of the node.
ip link set lo up
ip link add uplink type veth peer name gateway || fail 'cannot create a veth link'
ip address add "$ADDRESS/24" dev uplink
ip link set gateway up
ip link set uplink up
ip route add default via "${ADDRESS%.*}.254" dev uplink
echo 1 > /proc/sys/net/ipv4/ip_forward
printf 'nameserver %s\n' "$ADDRESS" > /etc/resolv.conf
# containerd copies it into pods.
printf '127.0.0.1 localhost\n%s node\n' "$ADDRESS" > /etc/hosts
mkdir -p /etc/cni/net.d /run/lock /var/lib/kubelet /var/lib/containerd /var/log/pods
cp cni.conflist /etc/cni/net.d/10-pods.conflist

start etcd etcd --data-dir=/node/etcd --unsafe-no-fsync --log-level=warn \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
  --listen-peer-urls=http://127.0.0.1:2380 --quota-backend-bytes=8589934592
start kube-apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir=/node/certificates \
  --bind-address=0.0.0.0 --advertise-address="$ADDRESS" --secure-port=6443 \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file=service-account.pub --service-account-signing-key-file=service-account.key \
  --token-auth-file=tokens.csv --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
  --service-cluster-ip-range=10.96.0.0/16 --kubelet-preferred-address-types=InternalIP --allow-privileged=true
start containerd containerd --config=containerd.toml
await 'containerd does not answer' ctr version
for image in /opt/images/*.tar; do
  ctr --namespace k8s.io images import "$image" > logs/import.log 2>&1 || fail "cannot import $image"
done
await 'kube-apiserver is not ready' kubectl get --raw /readyz
await 'kube-apiserver has no namespace default' kubectl get namespace default

start kube-controller-manager kube-controller-manager --kubeconfig=admin.kubeconfig --bind-address=127.0.0.1 \
  --cert-dir=/node/controller-manager --root-ca-file=certificates/apiserver.crt \
  --service-account-private-key-file=service-account.key --use-service-account-credentials=true --leader-elect=false
start kube-scheduler kube-scheduler --kubeconfig=scheduler.kubeconfig --authentication-kubeconfig=admin.kubeconfig \
  --authorization-kubeconfig=admin.kubeconfig --bind-address=127.0.0.1 --leader-elect=false
start kubelet kubelet --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --hostname-override=node \
  --node-ip="$ADDRESS" --cert-dir=/node/kubelet-certificates
kubectl create clusterrolebinding kube-proxy --clusterrole=system:node-proxier --user=system:kube-proxy \
  > logs/setup.log 2>&1 || fail 'cannot bind the role of kube-proxy'
start kube-proxy kube-proxy --config=kube-proxy.yaml
start coredns coredns -conf Corefile
await 'the node is not registered' kubectl get node node
await 'the node is not Ready' kubectl wait --for=condition=Ready node/node --timeout=1s
echo "$SECONDS" > ready

# Reaps processes that lost their parent, until the namespace ends.
while :; do
  wait -n
  sleep 1
done
