/** Prints a line when a tunnel comes up and when it goes down. Run: NAMESPACE=tunnels node watcher.ts */
import { CustomObjectsApi, KubeConfig, makeInformer, type V1ObjectMeta } from '@kubernetes/client-node';
import type { ReverseTunnel } from 'reverse-tunnel-operator/v1alpha1';

type Tunnel = ReverseTunnel<V1ObjectMeta>;

const namespace = process.env['NAMESPACE'] ?? 'default';
const config = new KubeConfig();
config.loadFromDefault();
const api = config.makeApiClient(CustomObjectsApi);
const kind = { group: 'reverse-tunnel.io', version: 'v1alpha1', plural: 'reversetunnels', namespace };
const path = `/apis/${kind.group}/${kind.version}/namespaces/${namespace}/${kind.plural}`;

const informer = makeInformer<Tunnel>(config, path, async () => await api.listNamespacedCustomObject(kind));
const report = (event: string, { spec }: Tunnel): void =>
  console.log(event, spec.tenantID, spec.nodeID, spec.reporter.id);
informer.on('add', (tunnel) => report('up', tunnel));
informer.on('delete', (tunnel) => report('down', tunnel));
// The informer stops after an error, such as a closed connection; it then lists again.
informer.on('error', () => setTimeout(() => void informer.start(), 1000));
await informer.start();
