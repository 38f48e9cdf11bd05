/** The tunnel log of a running operator: a scripted night, and targets that cannot be written. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from '@grpc/grpc-js';
import { expect } from 'chai';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { OPERATOR_RBAC_RULES } from '../../src/k8s/rbac-rules.ts';
import { concurrent } from '../support/concurrent.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { listTunnelObjects } from '../support/expected-objects.ts';
import { poll, runOperatorToExit, startOperatorProcess } from '../support/operator-process.ts';
import type { ObservedReporter } from '../support/replicas.ts';
import { dial, openStream, type TestStream } from '../support/test-stream.ts';
import type { RequestFields, TunnelFields } from '../support/wire.ts';

const DEADLINE_MS = 60_000;
const API = '/apis/reverse-tunnel.io/v1alpha1';
const HEARTBEAT_MS = 100;

/** A line of the tunnel log; docs/tunnel-log.md describes the fields. */
interface Line {
  readonly log: string;
  readonly time: string;
  readonly reason: string;
  readonly state: string;
  readonly tunnel: string;
  readonly tenant: string;
  readonly cluster: string;
  readonly node: string;
  readonly reporter: { readonly cluster: string; readonly id: string };
  readonly createdAt?: string;
  readonly upSeconds?: number;
  readonly seq: number;
  readonly replica: string;
  readonly namespace: string;
  readonly object: string;
}

/** Returns a tunnel that has been up for some seconds. */
function tunnelUpFor(seconds: number, node: string, tenant = 'acme'): TunnelFields {
  return {
    name: node,
    identity: { tenant_id: tenant, cluster_id: 'eu-1', node_id: node },
    created_at: { seconds: Math.floor(Date.now() / 1000) - seconds, nanos: 0 },
  };
}

describe('the tunnel log of an operator', () => {
  const controlPlane = useControlPlane();
  let folder: { readonly path: string; dispose(): Promise<void> };
  before(async () => {
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-log-');
  });
  after(() => folder?.dispose());
  const it = concurrent({
    timeoutMs: 4 * DEADLINE_MS,
    open: openFixture,
    close: (fixture) => fixture.stop(),
  });

  async function openFixture() {
    const namespace = await createNamespace(controlPlane(), 'tunnel-log');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const cleanup: (() => unknown)[] = [];
    const path = `${API}/namespaces/${namespace}`;
    const { request } = controlPlane();
    return {
      namespace,
      kubeconfigPath,
      file: join(folder.path, `${namespace}.jsonl`),
      async start(target: string, ...flags: string[]) {
        const operator = await startOperatorProcess({
          kubeconfigPath,
          namespace,
          flags: ['--report-interval', `${HEARTBEAT_MS}ms`, '--tunnel-log', target, ...flags],
        });
        const client: Client = dial(operator.grpcAddress);
        cleanup.push(() => client.close());
        cleanup.push(() => operator.kill());
        return { operator, client };
      },
      /** Opens a stream, sends a full push, and then heartbeats as Envoy does. */
      connect(client: Client, id: string, ...tunnels: TunnelFields[]) {
        const stream: TestStream = openStream(client);
        let nonce = 1;
        const send = (fields: RequestFields): void => {
          stream.send({ nonce, ...fields });
          nonce += 1;
        };
        send({ node: { id, cluster: 'edge' }, full_push: true, added_tunnels: tunnels });
        const heartbeat = setInterval(() => send({}), HEARTBEAT_MS);
        cleanup.push(() => clearInterval(heartbeat));
        void stream.ended.then(() => clearInterval(heartbeat));
        return { stream, send, end: () => stream.end() };
      },
      setPolicy: async (tenants: readonly string[]): Promise<void> => {
        const rule = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants };
        const policy = {
          apiVersion: 'reverse-tunnel.io/v1alpha1',
          kind: 'ReverseTunnelPolicy',
          metadata: { name: 'edge', namespace },
          spec: { rules: [rule] },
        };
        const { code, stderr } = await controlPlane().kubectl(['apply', '-f', '-'], {
          input: JSON.stringify(policy),
        });
        expect(code, stderr).to.equal(0);
      },
      objects: () => listTunnelObjects(request, namespace),
      async reporters(): Promise<ObservedReporter[]> {
        const { body } = await request('GET', `${path}/reversetunnelreporters`);
        return (body as { items: ObservedReporter[] }).items;
      },
      deleteReporter: (name: string) => request('DELETE', `${path}/reversetunnelreporters/${name}`),
      async stop(): Promise<void> {
        for (const clean of cleanup.toReversed()) await clean();
      },
    };
  }

  function readLines(text: string): Line[] {
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Line);
  }

  it('answers when and why a node dropped, after a night with every kind of transition', async (fixture, report) => {
    const { setPolicy, file } = fixture;
    const { client } = await fixture.start(
      file,
      // Until then, a busy machine must have deleted the reporter object, and reconnected the other reporter.
      ...['--unknown-after', '1s', '--expire-after', '15s'],
    );
    const lines = (): Line[] => readLines(readFileSync(file, 'utf8'));
    /** Waits until the log contains a reason for a node, after `skipped` others of the same reason. */
    const waitFor = (node: string, reason: string, skipped = 0): Promise<Line> =>
      poll(
        DEADLINE_MS,
        () => lines().filter((line) => line.node === node && line.reason === reason)[skipped],
      ).catch(() => expect.fail(`no line ${node} ${reason} in:\n${readFileSync(file, 'utf8')}`));

    // A reporter whose reporter object is deleted while it is disconnected.
    const deleted = fixture.connect(client, 'responder-1', tunnelUpFor(60, 'node-40'));
    await waitFor('node-40', 'Connected');
    deleted.end();
    const gone = await poll(DEADLINE_MS, async () =>
      (await fixture.reporters()).find(
        ({ spec, status }) =>
          spec.id === 'responder-1' && status.conditions?.some(({ reason }) => reason === 'StreamEnded'),
      ),
    );
    await fixture.deleteReporter(gone.metadata.name);

    const [node17, node18, node19] = [
      tunnelUpFor(600, 'node-17'),
      tunnelUpFor(600, 'node-18'),
      tunnelUpFor(600, 'node-19', 'beta'),
    ];
    const first = fixture.connect(client, 'responder-0', node17, node18, node19);
    await waitFor('node-19', 'Connected');
    first.send({ removed_tunnel_names: ['node-17'] });
    await waitFor('node-17', 'Removed');
    const again = tunnelUpFor(20, 'node-17');
    first.send({ added_tunnels: [again] });
    await waitFor('node-17', 'Connected', 1);
    first.send({ full_push: true, added_tunnels: [again, node19] });
    await waitFor('node-18', 'AbsentFromFullPush');
    const newest = tunnelUpFor(1, 'node-17');
    first.send({ full_push: true, added_tunnels: [newest, node19] });
    await waitFor('node-17', 'Replaced');
    await setPolicy(['acme']);
    await waitFor('node-19', 'PolicyDenied');
    await setPolicy(['acme', 'beta']);
    await waitFor('node-19', 'PolicyAllowed');
    first.end();
    await waitFor('node-17', 'MarkedUnknown');
    const second = fixture.connect(client, 'responder-0', newest, node19);
    await waitFor('node-17', 'Recovered');
    const { status } = await poll(DEADLINE_MS, async () =>
      (await fixture.reporters()).find(({ spec }) => spec.id === 'responder-0'),
    );
    expect(status.recentDisconnects).to.have.length(1);
    expect(status.recentDisconnects?.[0]).to.include({ reason: 'StreamEnded' });
    second.end();
    await waitFor('node-17', 'Expired');
    await waitFor('node-40', 'ReporterDeleted');
    await poll(DEADLINE_MS, async () => ((await fixture.objects()).length === 0 ? true : undefined));

    const all = lines();
    expect(all.every(({ log, namespace }) => log === 'tunnel' && namespace === fixture.namespace)).to.equal(
      true,
    );
    for (const id of ['responder-0', 'responder-1']) {
      const numbers = all.filter(({ reporter }) => reporter.id === id).map(({ seq }) => seq);
      expect(numbers).to.deep.equal(numbers.map((_, index) => index + 1));
    }
    // The query of docs/tunnel-log.md.
    const query =
      'select(.node == "node-17" and .upSeconds) | "\\(.time) \\(.reason) after \\(.upSeconds) s"';
    const answers = all
      .filter(({ node, upSeconds }) => node === 'node-17' && upSeconds !== undefined)
      .map(({ time, reason, upSeconds }) => `${time} ${reason} after ${upSeconds} s`);
    expect(answers.map((answer) => answer.split(' ')[1])).to.deep.equal([
      'Removed',
      'Replaced',
      'MarkedUnknown',
      'MarkedUnknown',
      'Expired',
    ]);
    expect(all.find(({ reason }) => reason === 'Removed')?.upSeconds).to.be.within(600, 660);
    report(`jq -r '${query}', ${all.length} lines`);
    for (const answer of answers) report(answer);
  });

  it('shares standard output with the log of the operator, one JSON object per line', async (fixture) => {
    const { operator, client } = await fixture.start('stdout');
    fixture.connect(client, 'responder-0', tunnelUpFor(5, 'node-"1\\'));
    await poll(DEADLINE_MS, () => operator.log.find((line) => line['log'] === 'tunnel'));
    const line = operator.log.find((candidate) => candidate['log'] === 'tunnel');
    expect(line).to.include({ reason: 'Connected', node: 'node-"1\\', seq: 1 });
    expect(operator.log.filter(({ level }) => level === 'text')).to.deep.equal([]);
  });

  const broken: readonly (readonly [string, (file: string) => string, string])[] = [
    ['on a full disk', () => '/dev/full', 'ENOSPC'],
    [
      'that is a FIFO without a reader',
      (file) => {
        execFileSync('mkfifo', [file]);
        return file;
      },
      'ENXIO',
    ],
  ];
  for (const [what, createTarget, error] of broken) {
    it(`serves reporters with a tunnel log ${what}`, async (fixture) => {
      const { operator, client } = await fixture.start(createTarget(fixture.file));
      const { stream, send } = fixture.connect(client, 'responder-0', tunnelUpFor(5, 'node-1'));
      await stream.next();
      send({ removed_tunnel_names: ['node-1'] });
      send({ added_tunnels: [tunnelUpFor(5, 'node-2')] });
      await poll(DEADLINE_MS, async () => {
        const names = (await fixture.objects()).map(({ spec }) => spec.tunnelName);
        return names.join() === 'node-2' ? true : undefined;
      });
      await poll(DEADLINE_MS, () =>
        operator.log.find(({ msg, error: cause }) =>
          msg.startsWith('failed to write the tunnel log') && String(cause).includes(error)
            ? true
            : undefined,
        ),
      );
      expect(await operator.stop()).to.equal(0);
      expect(operator.stderr).to.equal('');
      const lost = operator.log.find(({ msg }) => msg === 'lost the last lines of the tunnel log');
      // The first tunnel has no line if it closed before its object was created.
      expect(lost?.['lines']).to.be.within(1, 3);
    });
  }

  const unusable: readonly (readonly [string, (folderPath: string) => string, string])[] = [
    ['a directory', (folderPath) => folderPath, 'EISDIR'],
    ['a missing directory', (folderPath) => join(folderPath, 'missing', 'x'), 'ENOENT'],
  ];
  for (const [what, target, code] of unusable) {
    it(`rejects ${what} as a tunnel log in one line, and exits with 1`, async ({ kubeconfigPath }) => {
      const path = target(folder.path);
      const ports = ['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'];
      const flags = ['--auth', 'insecure', '--kubeconfig', kubeconfigPath, ...ports];
      const result = await runOperatorToExit([...flags, '--tunnel-log', path]);
      expect(result.stderr.trim().split('\n')).to.have.length(1);
      expect(result.stderr).to.include(`--tunnel-log: cannot open ${path}: ${code}`);
      expect(result.code).to.equal(1);
    });
  }
});
