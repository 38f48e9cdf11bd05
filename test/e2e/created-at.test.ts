import { expect } from 'chai';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { runDoctor } from '../support/cli-process.ts';
import { eventually } from '../support/eventually.ts';
import { listTunnelObjects, type ObservedTunnelObject } from '../support/expected-objects.ts';
import {
  OPERATOR_RBAC_RULES,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { dial, openStream } from '../support/test-stream.ts';
import type { TunnelFields } from '../support/wire.ts';

const HOUR_S = 3600;
const OMITTED_CREATED_AT = 'reverse-tunnel.io/omitted-created-at';

/** Initiators by their node ID: how far their clock is ahead, or the time that it shows, in s. */
const INITIATORS: readonly { node: string; aheadS?: number; seconds?: number; up: RegExp }[] = [
  { node: 'in-2262', seconds: Date.UTC(2262, 3, 11) / 1000, up: /^$/ },
  { node: 'hour-ahead', aheadS: HOUR_S, up: /^$/ },
  { node: 'two-seconds-ahead', aheadS: 2, up: /^(?:|0s|[1-9]\d*s)$/ },
  { node: 'correct', aheadS: 0, up: /^\d+s$/ },
  { node: 'hour-behind', aheadS: -HOUR_S, up: /^6\dm$/ },
  { node: 'in-1970', seconds: 0, up: /^\d\dy$/ },
];

describe('A created_at by the clock of the initiator, on a real API server', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let kubeconfigPath: string;
  let reported: TunnelFields[] | undefined;
  const started: OperatorProcess[] = [];

  before(async () => {
    namespace = await createNamespace(controlPlane(), 'created-at');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    ({ kubeconfigPath } = await controlPlane().kubeconfigFor(account));
  });

  after(async () => {
    for (const operator of started) await operator.kill();
  });

  /** Starts an operator whose clock is wrong, and sends it a full push. */
  async function reportTo(clockAheadMs: number): Promise<OperatorProcess> {
    const operator = await startOperatorProcess({
      kubeconfigPath,
      namespace,
      clockAheadMs,
      flags: ['--report-interval', '100ms'],
    });
    started.push(operator);
    const client = dial(operator.grpcAddress);
    const stream = openStream(client);
    reported ??= INITIATORS.map(({ node, aheadS = 0, seconds = Date.now() / 1000 + aheadS }) => ({
      name: node,
      identity: { tenant_id: 'acme', cluster_id: 'eu-1', node_id: node },
      created_at: { seconds: Math.floor(seconds), nanos: Math.floor((seconds % 1) * 1e6) * 1000 },
    }));
    stream.send({
      node: { id: 'responder', cluster: 'edge' },
      nonce: 1,
      full_push: true,
      added_tunnels: reported,
    });
    await stream.next();
    await eventually('the reporter is in sync', async () => {
      stream.send({ nonce: stream.responses.length + 1 });
      const { code } = await controlPlane().kubectl([
        ...['wait', '--namespace', namespace, '--for=condition=Synced', '--timeout=5s', 'rtr', '--all'],
      ]);
      return code === 0 && (await objects()).length === INITIATORS.length;
    });
    client.close();
    return operator;
  }

  async function objects(): Promise<ObservedTunnelObject[]> {
    return await listTunnelObjects(controlPlane().request, namespace);
  }

  /** Returns the column UP by node. */
  async function ups(): Promise<Map<string, string>> {
    const { stdout } = await controlPlane().kubectl(['get', 'rt', '--namespace', namespace]);
    const [header = '', ...lines] = stdout.trimEnd().split('\n');
    reportMeasurement(`kubectl get rt\n${stdout}`);
    const column = (line: string, name: string, next: string): string =>
      line.slice(header.indexOf(name), header.indexOf(next)).trim();
    return new Map(lines.map((line) => [column(line, 'NODE', 'REPORTER'), column(line, 'UP ', 'AGE')]));
  }

  it('is never shown as <invalid>, is omitted once, and is not decided again by an operator with another clock', async () => {
    const first = await reportTo(-2 * HOUR_S * 1000);
    const shown = await ups();
    for (const { node, up } of INITIATORS) expect(shown.get(node), node).to.match(up);
    const written = await objects();
    const omitted = written.filter(({ spec }) => spec.createdAt === undefined);
    const annotation = (name: string): string | undefined =>
      written.find(({ spec }) => spec.nodeID === name)?.metadata.annotations?.[OMITTED_CREATED_AT];
    expect(annotation('in-2262')).to.equal('2262-04-11T00:00:00Z');
    expect(annotation('hour-ahead')).to.match(/^\d{4}-.*Z$/);
    for (const node of ['correct', 'hour-behind', 'in-1970'])
      expect(annotation(node), node).to.equal(undefined);
    expect(await first.metric('reverse_tunnel_created_at_omitted_total')).to.equal(omitted.length);
    const line = first.log.find(({ msg }) => msg === 'omitted a creation time that is in the future');
    // The objects are written concurrently; one line stands for all of them.
    expect(omitted.map(({ spec }) => spec.tunnelName)).to.include(line?.['tunnel']);
    await first.stop();

    const second = await reportTo(2 * HOUR_S * 1000);
    expect(versions(await objects())).to.deep.equal(versions(written));
    expect(await second.metric('reverse_tunnel_created_at_omitted_total')).to.equal(0);
    const flags = ['--namespace', namespace, '--kubeconfig', kubeconfigPath];
    const { findings } = await runDoctor(flags);
    const { status, message } = findings.find(({ check }) => check === 'initiators') ?? {};
    expect(status).to.equal('warn');
    expect(message).to.include('in-2262').and.include('hour-ahead').and.not.include('correct');
    await second.stop();
  });
});

function versions(objects: readonly ObservedTunnelObject[]): string[] {
  return objects
    .map(({ metadata }) => `${metadata.name} ${metadata.uid} ${metadata.resourceVersion}`)
    .toSorted();
}
