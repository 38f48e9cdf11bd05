/** The files that the programs of the node read: credentials and configurations. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  generateServiceAccountKeys,
  generateToken,
  renderKubeconfig,
  writeSecret,
} from '../control-plane/credentials.ts';

/** The address of the node, in a network that only its namespace has. */
export const NODE_ADDRESS = '10.99.0.1';
/** Where the folder of the node appears inside of it. */
const INSIDE = '/node';
const POD_NETWORK = '10.88.0.0/16';
/** The image of the first process of each pod; only its name matters, because it is never pulled. */
export const PAUSE_IMAGE = 'localhost/pause:1';

/** The clients of the API server, with user name and groups. */
const CLIENTS = [
  { file: 'admin', user: 'admin', groups: 'system:masters' },
  { file: 'kubelet', user: 'system:node:node', groups: 'system:nodes' },
  { file: 'scheduler', user: 'system:kube-scheduler', groups: '' },
  { file: 'proxy', user: 'system:kube-proxy', groups: '' },
];

/**
 * Writes the files into `folder`.
 *
 * @param cgroup2 whether the machine has version 2 of control groups only
 */
export async function writeNodeFiles(folder: string, cgroup2: boolean): Promise<void> {
  const file = (name: string): string => join(folder, name);
  const keys = generateServiceAccountKeys();
  await writeSecret(file('service-account.key'), keys.privateKey);
  await writeSecret(file('service-account.pub'), keys.publicKey);
  const lines: string[] = [];
  for (const client of CLIENTS) {
    const token = generateToken();
    lines.push(`${token},${client.user},${client.user},${client.groups}\n`);
    await writeSecret(
      file(`${client.file}.kubeconfig`),
      kubeconfig(client.user, token, `${INSIDE}/certificates`),
    );
    // The same for programs outside of the node's root file system.
    if (client.file === 'admin')
      await writeSecret(file('kubeconfig'), kubeconfig(client.user, token, file('certificates')));
  }
  await writeSecret(file('tokens.csv'), lines.join(''));
  await writeFile(file('cgroup2'), cgroup2 ? 'yes\n' : '');
  await writeFile(file('containerd.toml'), CONTAINERD);
  for (const [name, value] of Object.entries({
    'cni.conflist': CNI,
    'kubelet.yaml': KUBELET,
    'kube-proxy.yaml': KUBE_PROXY,
  })) {
    // JSON is valid YAML.
    await writeFile(file(name), `${JSON.stringify(value, null, 2)}\n`);
  }
  await writeFile(file('Corefile'), COREFILE);
  for (const name of ['etcd', 'containerd', 'kubelet', 'logs']) await mkdir(file(name));
}

function kubeconfig(user: string, token: string, certificates: string): string {
  return renderKubeconfig({
    url: `https://${NODE_ADDRESS}:6443`,
    // The server writes its certificate, which is also the CA, when it starts.
    ca: { path: `${certificates}/apiserver.crt` },
    user,
    token,
    namespace: 'default',
  });
}

const CONTAINERD = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${PAUSE_IMAGE}"
  # Otherwise no pod starts where this process may not lower its own score.
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
`;

const CNI = {
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'pods',
      isGateway: true,
      // A pod reaches itself by the address of its Service.
      hairpinMode: true,
      ipMasq: false,
      ipam: { type: 'host-local', ranges: [[{ subnet: POD_NETWORK }]], routes: [{ dst: '0.0.0.0/0' }] },
    },
  ],
};

const KUBELET = {
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  failCgroupV1: false,
  cgroupDriver: 'cgroupfs',
  containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
  // Only processes in the network namespace of the node reach it.
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: 'AlwaysAllow' },
  clusterDNS: [NODE_ADDRESS],
  clusterDomain: 'cluster.local',
  failSwapOn: false,
  // The disk is shared with the machine: however full it is, images must stay.
  imageGCHighThresholdPercent: 100,
  imageGCLowThresholdPercent: 99,
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '1%',
    'imagefs.available': '1%',
    'nodefs.inodesFree': '1%',
  },
  // Pods get only the names of the cluster.
  resolvConf: '/etc/resolv.conf',
};

const KUBE_PROXY = {
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  kind: 'KubeProxyConfiguration',
  mode: 'nftables',
  clientConnection: { kubeconfig: `${INSIDE}/proxy.kubeconfig` },
  clusterCIDR: POD_NETWORK,
  hostnameOverride: 'node',
  // The limits are those of the machine, which must not change.
  conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
};

const COREFILE = `.:53 {
  bind ${NODE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig ${INSIDE}/admin.kubeconfig
  }
  cache 5
}
`;
