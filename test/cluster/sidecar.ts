/** A standard Envoy with the agent as a sidecar, as `examples/kubernetes` deploys it, with an initiator and a request. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { killGroup, waitForExit } from '../../control-plane/process-supervisor.ts';
import { resolveEnvoys } from '../../envoy/resolve.ts';
import type { ImageBuilder } from '../../cluster/image-builder.ts';
import { loadImage } from '../../cluster/node.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { eventually } from '../support/eventually.ts';
import type { ClusterTools } from './cluster-tools.ts';
import { clientCertificate, createRestrictedNamespace, NAMESPACE } from './installation.ts';

const EDGE = 'edge';
const NODE_ID = 'node-17';
const BACKEND_PORT = 18_080;
const BACKEND_TEXT = 'hello from behind the tunnel';
/** An initiator tries again after 10 to 11 s. */
const DEADLINE_MS = 180_000;
const POLL_MS = 500;

/** Deploys the example of one credential, checks it end to end, and removes it. Returns a note. */
export async function runSidecar(
  tools: ClusterTools,
  builder: ImageBuilder,
  credential: 'token' | 'certificate',
  parent: string,
): Promise<string> {
  const folder = join(parent, `sidecar-${credential}`);
  await mkdir(folder);
  const envoy = (await resolveEnvoys())[0];
  if (envoy === undefined) throw new Error('no Envoy');
  const image = `docker.io/envoyproxy/envoy:distroless-v${envoy.version}`;
  await loadImage(tools.node, await builder.buildProgram(image, envoy.path, '/usr/local/bin/envoy'));
  await createRestrictedNamespace(tools, EDGE);
  const authority = createCertificateAuthority();
  const write = async (name: string, content: string): Promise<string> => {
    await writeFile(join(folder, name), content);
    return join(folder, name);
  };
  const ca = await write('ca.crt', authority.ca);
  const server = authority.issue({ dnsNames: ['responder.example.com'] });
  const client = authority.issue({ dnsNames: ['initiator.example.com'] });
  const secret = async (name: string, files: Readonly<Record<string, string>>): Promise<void> => {
    const flags = Object.entries(files).map(([key, path]) => `--from-file=${key}=${path}`);
    await tools.kubectl('create', 'secret', 'generic', name, '--namespace', EDGE, ...flags);
  };
  const certificate = await write('server.crt', server.cert);
  await secret('envoy-responder-tls', {
    'tls.crt': certificate,
    'tls.key': await write('server.key', server.key),
    'ca.crt': ca,
  });
  const contentOf = await clientCertificate(tools);
  const decoded = async (key: string): Promise<string> =>
    await write(`operator-${key}`, contentOf(key).toString());
  await secret('reverse-tunnel-operator-ca', { 'ca.crt': await decoded('ca.crt') });
  await secret('envoy-responder-reporter', {
    'tls.crt': await decoded('tls.crt'),
    'tls.key': await decoded('tls.key'),
    'ca.crt': await decoded('ca.crt'),
  });

  const manifests = await tools.kubectl('kustomize', join('examples', 'kubernetes', credential));
  const shipped = /reverse-tunnel-operator\/reverse-tunnel-operator:[\w.]+/g;
  await tools.apply(
    manifests.replaceAll(shipped, 'reverse-tunnel-operator/reverse-tunnel-operator:dev'),
    '--namespace',
    EDGE,
  );
  await tools.kubectl(
    'rollout',
    'status',
    '--namespace',
    EDGE,
    'deployment/envoy-responder',
    '--timeout',
    '300s',
  );
  const addressOf = async (service: string): Promise<string> =>
    await tools.kubectl(
      'get',
      'service',
      '--namespace',
      EDGE,
      service,
      '--output',
      'jsonpath={.spec.clusterIP}',
    );

  const bootstrap = (await readFile(join('examples', 'envoy-initiator-mtls.yaml'), 'utf8'))
    .replace(
      'address: responder.example.com, port_value: 9000',
      `address: ${await addressOf('envoy-responder-tunnels')}, port_value: 9000`,
    )
    .replace(
      'address: backend.example.com, port_value: 80',
      `address: 127.0.0.1, port_value: ${BACKEND_PORT}`,
    )
    .replaceAll('/etc/envoy/tunnels/', `${folder}/`);
  await write('tls.crt', client.cert);
  await write('tls.key', client.key);
  const config = await write('initiator.yaml', bootstrap);
  const backend = tools.start([
    process.execPath,
    '--eval',
    `require('node:http').createServer((_, response) => response.end(${JSON.stringify(BACKEND_TEXT)})).listen(${BACKEND_PORT}, '127.0.0.1')`,
  ]);
  const flags = ['--concurrency', '1', '--use-dynamic-base-id', '--log-level', 'error'];
  const initiator = tools.start([envoy.path, '--config-path', config, ...flags]);
  for (const child of [backend, initiator])
    for (const stream of [child.stdout, child.stderr]) stream?.resume();
  try {
    const startedMs = performance.now();
    await eventually(
      'the tunnel has an object',
      async () => (await tunnels(tools)).length === 1,
      DEADLINE_MS,
      POLL_MS,
    );
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    const requests = `http://${await addressOf('envoy-responder')}:8085/`;
    const script = `fetch(process.argv[1], { headers: { 'x-node-id': '${NODE_ID}' } }).then(async (response) => console.log(await response.text()))`;
    // kube-proxy programs the Service a moment after the pod is ready.
    let answer = '';
    await eventually(
      'a request through the tunnel is answered',
      async () => {
        const { stdout, stderr } = await tools.run([process.execPath, '--eval', script, requests]);
        answer = stdout.trim() || stderr;
        return answer === BACKEND_TEXT;
      },
      DEADLINE_MS,
      POLL_MS,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}: ${answer.slice(0, 300)}`);
    });
    killGroup(initiator);
    await waitForExit(initiator);
    await eventually(
      'the object is deleted',
      async () => (await tunnels(tools)).length === 0,
      DEADLINE_MS,
      POLL_MS,
    );
    return `Envoy ${envoy.version}; the object exists ${seconds} s after the initiator has started; a request passed`;
  } catch (error) {
    const log = await tools.run([
      'kubectl',
      'logs',
      '--namespace',
      EDGE,
      'deployment/envoy-responder',
      '--container',
      'agent',
      '--tail',
      '3',
    ]);
    throw new Error(`${String(error)}; agent: ${log.stdout}${log.stderr}`, { cause: error });
  } finally {
    for (const child of [backend, initiator]) {
      killGroup(child);
      await waitForExit(child);
    }
    await tools.kubectl('delete', 'namespace', EDGE, '--timeout', '300s');
  }
}

async function tunnels({ kubectl }: ClusterTools): Promise<readonly string[]> {
  // The fleet of the disruptions has a node of the same name, whose object may remain.
  const selector = `reverse-tunnel.io/node=${NODE_ID},reverse-tunnel.io/cluster=eu-1`;
  const text = await kubectl(
    'get',
    'reversetunnels',
    '--namespace',
    NAMESPACE,
    '--selector',
    selector,
    '--output',
    'name',
  );
  return text.split('\n').filter((line) => line !== '');
}
