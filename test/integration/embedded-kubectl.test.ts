/** kubectl prints the same with the embedded API server as with a real one. */
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { killGroup, spawnGuarded } from '../../control-plane/process-supervisor.ts';
import { run } from '../../control-plane/run.ts';
import { type EmbeddedApiServer, startEmbeddedApiServer } from '../../embedded-api-server/start.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { eventually } from '../support/eventually.ts';

const TUNNELS = ['a', 'b', 'c'].map((name) => ({
  apiVersion: 'reverse-tunnel.io/v1alpha1',
  kind: 'ReverseTunnel',
  metadata: { name, labels: { team: name } },
  spec: {
    tunnelName: `acme:node-${name}`,
    tenantID: name === 'a' ? 'acme' : 'beta',
    clusterID: 'eu-1',
    nodeID: `node-${name}`,
    reporter: { id: 'responder-0', cluster: 'edge' },
    createdAt: '2020-01-01T00:00:00Z',
  },
}));
const MANIFEST = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: TUNNELS });
const INVALID = JSON.stringify({ ...TUNNELS[0], spec: { ...TUNNELS[0]?.spec, nodeID: '', extra: 1 } });

/** Commands in order; a text is passed as stdin. */
const COMMANDS: readonly (readonly [string] | readonly [string, string])[] = [
  ['apply -f -', MANIFEST],
  ['apply --server-side --force-conflicts -f -', MANIFEST],
  ['create -f -', INVALID],
  ['create -f - --validate=false', INVALID],
  ['api-resources --api-group=reverse-tunnel.io --sort-by=name'],
  ['get rt'],
  ['get rt -o wide'],
  ['get rt a -o yaml'],
  ['get rt -l team!=a -o name'],
  ['get rt --field-selector spec.tenantID=beta --chunk-size=1'],
  ['get rt --field-selector spec.tunnelName=a'],
  ['get reverse-tunnels,leases'],
  ['get rt missing'],
  ['describe rt a'],
  ['wait --for=condition=Ready rt --all --timeout=60s'],
  ['label rt a team=z --overwrite'],
  ['patch rt a --type=merge -p {"spec":{"nodeID":"other"}}'],
  ['patch rt a --subresource=status --type=merge -p {"status":{"state":"Unknown"}}'],
  ['get rt a'],
  ['explain rt.spec.reporter'],
  ['explain rtr.status --recursive'],
  ['auth can-i delete rt'],
  ['delete rt a'],
  ['delete rt --all'],
  ['get rt'],
];

/** Removes what differs between two runs: versions, uids, times, and managed fields, which are not served. */
function normalize(text: string): string {
  return (
    text
      .replaceAll(
        /(resourceVersion|uid|UID|creationTimestamp|(?:Resource Version|Creation Timestamp)): +.*/g,
        '$1',
      )
      // kubectl reads the managed fields of a server-side apply when it updates this annotation.
      .replaceAll('"annotations":{},', '')
      // The width of columns depends on ages.
      .replaceAll(/ \d+m?\d*s( |$)/gm, ' seconds$1')
      .replaceAll(/(\S) {2,}/g, '$1  ')
      // Several errors are in random order.
      .replaceAll(/^\* .*$/gm, (line) => (line.includes('nodeID') ? '* nodeID' : '* …'))
  );
}

describe('kubectl with the embedded API server', () => {
  const controlPlane = useControlPlane();
  let embedded: EmbeddedApiServer;
  let namespace: string;

  before(async () => {
    embedded = await startEmbeddedApiServer();
    namespace = await createNamespace(controlPlane(), 'kubectl');
    await embedded.request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
  });
  after(() => embedded.stop());

  async function kubectl(server: { kubeconfigPath: string; folder: string }, args: string[], input?: string) {
    const { code, stdout, stderr } = await run(
      `${controlPlane().binaries}/kubectl`,
      ['--kubeconfig', server.kubeconfigPath, '-n', namespace, ...args],
      {
        cwd: process.cwd(),
        env: { HOME: server.folder, KUBECACHEDIR: `${server.folder}/kubectl-cache` },
        timeoutMs: 120_000,
        ...(input === undefined ? {} : { input }),
      },
    );
    return { command: args.join(' '), code, stdout: normalize(stdout), stderr: normalize(stderr) };
  }

  it('prints the same results and the same errors as with a real one', async () => {
    const embeddedResults: unknown[] = [];
    const realResults: unknown[] = [];
    for (const [command, input] of COMMANDS) {
      const args = command.split(' ');
      const [fromEmbedded, fromReal] = await Promise.all(
        [embedded, controlPlane()].map((server) => kubectl(server, args, input)),
      );
      embeddedResults.push(fromEmbedded);
      realResults.push(fromReal);
    }
    const differences = embeddedResults.filter(
      (result, index) => !isDeepStrictEqual(result, realResults[index]),
    );
    const expected = realResults.filter(
      (result, index) => !isDeepStrictEqual(result, embeddedResults[index]),
    );
    expect(differences).to.deep.equal(expected);
  });

  it('shows changes with get --watch, and an object that no longer matches as deleted', async () => {
    let printed = '';
    // A chunk may end within a line.
    const lines = (): string[] => printed.split('\n').slice(0, -1);
    await kubectl(embedded, ['create', '-f', '-'], JSON.stringify(TUNNELS[0]));
    const watch = spawnGuarded(
      `${controlPlane().binaries}/kubectl`,
      [
        ...['--kubeconfig', embedded.kubeconfigPath, '-n', namespace, 'get', 'rt', '-l', 'team=a'],
        ...['--watch', '--output-watch-events'],
      ],
      { cwd: process.cwd(), env: { HOME: embedded.folder }, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    try {
      watch.stdout?.setEncoding('utf8').on('data', (text: string) => (printed += text));
      await eventually('the object', () => lines().length === 2);
      for (const label of ['x=1', 'team=z', 'team=a'])
        await kubectl(embedded, ['label', 'rt', 'a', label, '--overwrite']);
      await kubectl(embedded, ['delete', 'rt', 'a']);
      await eventually('the deletion', () => lines().length >= 6);
    } finally {
      killGroup(watch);
    }
    expect(lines().map((line) => line.split(/ +/).slice(0, 2).join(' '))).to.deep.equal([
      'EVENT NAME',
      'ADDED a',
      'MODIFIED a',
      'DELETED a',
      'ADDED a',
      'DELETED a',
    ]);
  });
});
