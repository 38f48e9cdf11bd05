/** ReverseTunnelExpectation with a running operator: kubectl, `kubectl rt`, and what the API server rejects. */
import type { Client } from '@grpc/grpc-js';
import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { runCommand } from '../support/cli-process.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { listTunnelObjects } from '../support/expected-objects.ts';
import { OPERATOR_RBAC_RULES, poll, startOperatorProcess } from '../support/operator-process.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { dial, openStream } from '../support/test-stream.ts';
import { tunnel, type TunnelFields } from '../support/wire.ts';

const DEADLINE_MS = 60_000;
const HEARTBEAT_MS = 100;
const API = '/apis/reverse-tunnel.io/v1alpha1';
/** Drops of a tunnel whose time to Ready=False is measured. */
const MEASURED_DROPS = Number(process.env['MEASURED_DROPS'] ?? 5);

function tunnelOf(node: string): TunnelFields {
  return { ...tunnel(node), identity: { tenant_id: 'acme', cluster_id: 'eu-1', node_id: node } };
}

/** A reporter that holds a set of tunnels and sends heartbeats as Envoy does. */
function connectReporter(client: Client, id: string, names: readonly string[]) {
  const stream = openStream(client);
  let nonce = 1;
  const added = names.map((name) => tunnelOf(name));
  stream.send({ node: { id, cluster: 'edge' }, nonce, full_push: true, added_tunnels: added });
  const send = (change: object): void => {
    nonce += 1;
    stream.send({ nonce, ...change });
  };
  const heartbeat = setInterval(() => send({}), HEARTBEAT_MS);
  return {
    add: (name: string): void => send({ added_tunnels: [tunnelOf(name)] }),
    remove: (name: string): void => send({ removed_tunnel_names: [name] }),
    disconnect(): void {
      clearInterval(heartbeat);
      stream.cancel();
    },
  };
}

/** Starts an operator in a namespace of its own. */
async function openFixture(controlPlane: ControlPlaneClient, hint: string, flags: readonly string[] = []) {
  const namespace = await createNamespace(controlPlane, hint);
  const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
  const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
  const operator = await startOperatorProcess({
    kubeconfigPath,
    namespace,
    flags: ['--report-interval', `${HEARTBEAT_MS}ms`, ...flags],
  });
  const client = dial(operator.grpcAddress);
  const reporters: ReturnType<typeof connectReporter>[] = [];

  async function kubectl(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await controlPlane.kubectl(['-n', namespace, ...args]);
    expect(code, stderr).to.equal(0);
    return stdout;
  }

  async function apply(name: string, spec: object): Promise<number> {
    const path = `${API}/namespaces/${namespace}/reversetunnelexpectations`;
    const body = {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelExpectation',
      metadata: { name },
      spec,
    };
    return (await controlPlane.request('POST', path, body)).status;
  }

  return {
    namespace,
    kubeconfigPath,
    operator,
    kubectl,
    apply,
    connect(id: string, ...names: string[]) {
      const reporter = connectReporter(client, id, names);
      reporters.push(reporter);
      return reporter;
    },
    waitFor: (condition: string, name: string): Promise<string> =>
      kubectl('wait', `--for=condition=${condition}`, `rte/${name}`, '--timeout=60s'),
    waitForReason: (name: string, reason: string): Promise<string> =>
      kubectl(
        'wait',
        `--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=${reason}`,
        `rte/${name}`,
        '--timeout=60s',
      ),
    async waitForObjects(count: number): Promise<void> {
      await poll(DEADLINE_MS, async () => {
        const objects = await listTunnelObjects(controlPlane.request, namespace);
        return objects.length === count ? true : undefined;
      });
    },
    async stop(): Promise<void> {
      for (const reporter of reporters) reporter.disconnect();
      client.close();
      await operator.kill();
    },
  };
}

type Fixture = Awaited<ReturnType<typeof openFixture>>;

/** Splits the lines of a table into cells. */
function cells(table: string): string[][] {
  return table
    .trim()
    .split('\n')
    .map((line) => line.split(/\s{2,}/).slice(0, 5));
}

describe('expectations of a running operator', function () {
  this.timeout(4 * DEADLINE_MS);
  const controlPlane = useControlPlane();
  let fixture: Fixture;
  before(async () => {
    const flags = ['--unknown-after', '1s', '--expire-after', '3s'];
    fixture = await openFixture(controlPlane(), 'expectations', flags);
    await fixture.operator.ready();
  });
  after(() => fixture.stop());

  interface Expectation {
    readonly metadata: { readonly resourceVersion: string };
    readonly status: {
      readonly tunnels: number;
      readonly unknown: number;
      readonly conditions: readonly { readonly status: string; readonly message: string }[];
    };
  }

  const versionOf = (name: string): Promise<string> =>
    fixture.kubectl('get', 'rte', name, '-o', 'jsonpath={.metadata.resourceVersion}');

  /** Returns each status of an expectation since a version, up to the current one. */
  async function statusesSince(name: string, version: string): Promise<Expectation['status'][]> {
    const current = await versionOf(name);
    const path = `${API}/namespaces/${fixture.namespace}/reversetunnelexpectations`;
    const query = `watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D${name}&resourceVersion=${version}`;
    // A watch of a second may end before the API server has sent everything.
    return await poll(DEADLINE_MS, async () => {
      const lines = (await fixture.kubectl('get', '--raw', `${path}?${query}`)).split('\n');
      const objects = lines
        .filter((line) => line !== '')
        .map((line) => (JSON.parse(line) as { readonly object: Expectation }).object);
      const isComplete = objects.at(-1)?.metadata.resourceVersion === current;
      return isComplete ? objects.map(({ status }) => status) : undefined;
    });
  }

  it('show a node that loses its second reporter, then its last one, in kubectl get, describe and wait', async () => {
    const first = fixture.connect('responder-0', 'node-17', 'node-18');
    const second = fixture.connect('responder-1', 'node-17', 'node-18');
    await fixture.waitForObjects(4);
    const match = { tenantID: 'acme', nodes: ['node-17', 'node-18'] };
    expect(await fixture.apply('edge', { match, minReporters: 2, gracePeriod: '0s' })).to.equal(201);
    await fixture.waitFor('Ready', 'edge');
    expect(cells(await fixture.kubectl('get', 'rte'))).to.deep.equal([
      ['NAME', 'READY', 'TUNNELS', 'REPORTERS', 'MISSING'],
      ['edge', 'True', '4', '2', '0'],
    ]);

    second.remove('node-17');
    await fixture.waitForReason('edge', 'TooFewReporters');
    expect(cells(await fixture.kubectl('get', 'rte'))[1]).to.deep.equal(['edge', 'False', '3', '2', '0']);

    first.remove('node-17');
    await fixture.waitFor('Ready=False', 'edge');
    await fixture.waitForReason('edge', 'Missing');
    expect(cells(await fixture.kubectl('get', 'rte'))[1]).to.deep.equal(['edge', 'False', '2', '2', '1']);
    const description = await poll(DEADLINE_MS, async () => {
      const text = await fixture.kubectl('describe', 'rte', 'edge');
      return /Warning\s+Missing/.test(text) ? text : undefined;
    });
    expect(description)
      .to.match(/Missing Nodes:\n\s+node-17/)
      .and.match(/Warning\s+TooFewReporters/);

    first.add('node-17');
    second.add('node-17');
    await fixture.waitFor('Ready', 'edge');
    await fixture.kubectl('delete', 'rte', 'edge');
    first.disconnect();
    second.disconnect();
    await fixture.waitForObjects(0);
  });

  it('are unknown while the reporter is disconnected, and missing once its objects have expired', async () => {
    const reporter = fixture.connect('responder-2', 'node-30');
    expect(await fixture.apply('unknown', { match: { nodeID: 'node-30' }, gracePeriod: '0s' })).to.equal(201);
    await fixture.waitFor('Ready', 'unknown');
    const version = await versionOf('unknown');
    reporter.disconnect();
    await fixture.waitForReason('unknown', 'Missing');
    // It was Unknown for 2 s, in which a busy machine may not even start kubectl.
    const changes = await statusesSince('unknown', version);
    const status = changes.find(({ conditions }) => conditions[0]?.status === 'Unknown');
    expect(status).to.include({ tunnels: 0, unknown: 1 });
    expect(status?.conditions[0]?.message).to.include('not counted as connected');
    expect(await fixture.operator.metric('reverse_tunnel_expectations{state="unsatisfied"}')).to.equal(1);
    await fixture.kubectl('delete', 'rte', 'unknown');
    await poll(DEADLINE_MS, async () =>
      (await fixture.operator.metric('reverse_tunnel_expectations{state="unsatisfied"}')) === 0
        ? true
        : undefined,
    );
  });

  it('report a dropped tunnel soon after its removal, without a grace period', async () => {
    const nodes = Array.from({ length: MEASURED_DROPS }, (_, index) => `drop-${index}`);
    const reporter = fixture.connect('responder-3', ...nodes);
    for (const node of nodes) await fixture.apply(node, { match: { nodeID: node }, gracePeriod: '0s' });
    await fixture.kubectl('wait', '--for=condition=Ready', 'rte', '--all', '--timeout=60s');
    const timesMs: number[] = [];
    for (const node of nodes) {
      const path = `${API}/namespaces/${fixture.namespace}/reversetunnelexpectations/${node}`;
      const startMs = performance.now();
      reporter.remove(node);
      await poll(DEADLINE_MS, async () => {
        const { body } = await controlPlane().request('GET', path);
        const { status } = body as { status: { conditions: { status: string }[] } };
        return status.conditions[0]?.status === 'False' ? true : undefined;
      });
      timesMs.push(performance.now() - startMs);
    }
    timesMs.sort((a, b) => a - b);
    const quantile = (q: number): string =>
      `${Math.round(timesMs[Math.ceil(q * timesMs.length) - 1] ?? 0)} ms`;
    reportMeasurement(
      `${MEASURED_DROPS} drops: Ready=False ${quantile(0.5)} (p50), ${quantile(0.99)} (p99) after the report`,
    );
    expect(await fixture.operator.metric('reverse_tunnel_expectations{state="unsatisfied"}')).to.equal(
      MEASURED_DROPS,
    );
    await fixture.kubectl('delete', 'rte', '--all');
    reporter.disconnect();
  });

  it('are printed for what is connected now, can be applied, and come first in kubectl rt status', async () => {
    const reporter = fixture.connect('responder-4', 'node-50', 'node-51');
    await fixture.waitForObjects(2);
    const flags = ['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', fixture.namespace];
    const command = (...args: string[]) => runCommand([...args, ...flags], 'src/kubectl-rt.ts');
    const { code, stdout, stderr } = await command('expect', '--from-current', '--grace-period', '0s');
    expect([code, stderr]).to.deep.equal([0, '']);
    const folder = await mkdtemp(join(tmpdir(), 'rt-expect-'));
    try {
      const file = join(folder, 'expectations.yaml');
      await writeFile(file, stdout);
      await fixture.kubectl('apply', '--server-side', '-f', file);
    } finally {
      await rm(folder, { recursive: true });
    }
    await fixture.waitFor('Ready', 'acme-eu-1');
    reporter.remove('node-51');
    await fixture.waitForReason('acme-eu-1', 'Missing');
    const status = await command('status');
    expect(status.stdout.split('\n\n')[1]).to.match(
      /^EXPECTATION .*\nacme-eu-1 +unsatisfied +Missing .*node-51$/,
    );
    const json = await command(
      'expect',
      '--from-current',
      '-o',
      'json',
      '-l',
      'reverse-tunnel.io/node=node-50',
    );
    expect(JSON.parse(json.stdout))
      .to.have.nested.property('items[0].spec.match.nodes')
      .deep.equal(['node-50']);
    const nothing = await command('expect', '--from-current', '-l', 'reverse-tunnel.io/node=other');
    expect([nothing.code, nothing.stdout]).to.deep.equal([1, '']);
    expect((await command('expect')).stderr).to.include('--from-current: is required');
    await fixture.kubectl('delete', 'rte', '--all');
    reporter.disconnect();
  });

  for (const [title, spec, message] of [
    [
      'a node and a list of nodes',
      { match: { nodeID: 'a', nodes: ['b'] } },
      /must not set both nodeID and nodes/,
    ],
    [
      'a selector and a tenant',
      { match: { tenantID: 'acme', selector: { matchLabels: { 'reverse-tunnel.io/node': 'a' } } } },
      /must not set selector together with/,
    ],
    ['a label of another kind', { match: { selector: { matchLabels: { team: 'a' } } } }, /keys must be/],
    [
      'In without values',
      { match: { selector: { matchExpressions: [{ key: 'reverse-tunnel.io/node', operator: 'In' }] } } },
      /values must be set for In and NotIn/,
    ],
    [
      '100,000 nodes',
      { match: { nodes: Array.from({ length: 100_000 }, (_, index) => `node-${index}`) } },
      /must have at most 1000 items/,
    ],
    ['a grace period above a week', { match: {}, gracePeriod: '169h' }, /must be at most 168h/],
    ['a grace period without a unit', { match: {}, gracePeriod: '60' }, /should match/],
    ['no tunnels', { match: {}, minTunnels: 0 }, /should be greater than or equal to 1/],
    ['no match', {}, /Required value/],
  ] as const) {
    it(`with ${title} are rejected by the API server`, async () => {
      const path = `${API}/namespaces/${fixture.namespace}/reversetunnelexpectations`;
      const { status, body } = await controlPlane().request('POST', path, {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelExpectation',
        metadata: { name: 'bad' },
        spec,
      });
      expect(status, JSON.stringify(body).slice(0, 500)).to.equal(422);
      expect((body as { message: string }).message).to.match(message);
    });
  }
});
