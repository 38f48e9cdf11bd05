/** ReverseTunnelPolicy, against the operator as users run it: who is let in, what is rejected, what a change does. */
import type { Client } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { applyCrds } from '../support/apply-crds.ts';
import {
  createNamespace,
  FIRST_START_TIMEOUT_MS,
  startWithCrds,
  useControlPlane,
} from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { conditionText, createReplicas, type ObservedReporter } from '../support/replicas.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { dial, openStream, type TestStream } from '../support/test-stream.ts';
import { listTunnelObjects } from '../support/expected-objects.ts';
import { tunnel, type TunnelFields } from '../support/wire.ts';

const DEADLINE_MS = 30_000;
/** What is promised: within seconds. On two cores shared with everything else. */
const SECONDS_MS = 5000;
const HEARTBEAT_MS = 100;
const PERMISSION_DENIED = 7;
const API = '/apis/reverse-tunnel.io/v1alpha1';

const ANYBODY = [{ any: true }];
const EVERYTHING = { peers: ANYBODY, reporters: { ids: ['*'] }, tenants: ['*'] };

function of(tenant: string, name: string): TunnelFields {
  return { ...tunnel(name), identity: { tenant_id: tenant, cluster_id: 'eu-1', node_id: name } };
}

/** An operator in a namespace of its own, and what a person does there. */
async function open(
  controlPlane: ControlPlaneClient,
  hint: string,
  rules = OPERATOR_RBAC_RULES,
  flags: string[] = [],
) {
  const namespace = await createNamespace(controlPlane, hint);
  const account = { namespace, serviceAccount: 'operator', rules };
  const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
  const operator: OperatorProcess = await startOperatorProcess({
    kubeconfigPath,
    namespace,
    flags: ['--report-interval', `${HEARTBEAT_MS}ms`, ...flags],
  });
  const client: Client = dial(operator.grpcAddress);
  const heartbeats = new Set<NodeJS.Timeout>();
  const path = `${API}/namespaces/${namespace}`;

  async function kubectl(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await controlPlane.kubectl(['-n', namespace, ...args]);
    expect(code, stderr).to.equal(0);
    return stdout;
  }

  return {
    namespace,
    operator,
    kubectl,
    async policy(name: string, ...rules: object[]): Promise<void> {
      const body = {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelPolicy',
        metadata: { name },
        spec: { rules },
      };
      const answer = await controlPlane.request('POST', `${path}/reversetunnelpolicies`, body);
      expect(answer.status, JSON.stringify(answer.body)).to.equal(201);
    },
    change: (name: string, ...rules: object[]): Promise<string> =>
      kubectl('patch', 'rtp', name, '--type=merge', '-p', JSON.stringify({ spec: { rules } })),
    remove: (name: string): Promise<string> => kubectl('delete', 'rtp', name),
    /** A stream that has sent its full push, and goes on with heartbeats as Envoy does. */
    report(id: string, ...tunnels: TunnelFields[]): TestStream {
      const stream = openStream(client);
      stream.send({ node: { id, cluster: 'edge' }, nonce: 1, full_push: true, added_tunnels: tunnels });
      let nonce = 1;
      const heartbeat = setInterval(() => {
        nonce += 1;
        stream.send({ nonce });
      }, HEARTBEAT_MS);
      heartbeats.add(heartbeat);
      void stream.ended.then(() => clearInterval(heartbeat));
      return stream;
    },
    /** Resolves with the milliseconds until exactly these tunnels have a row. */
    async rows(...names: string[]): Promise<number> {
      const startMs = performance.now();
      let last: string[] = [];
      await poll(DEADLINE_MS, async () => {
        const rows = await listTunnelObjects(controlPlane.request, namespace);
        last = rows.map(({ spec }) => spec.tunnelName).toSorted();
        return JSON.stringify(last) === JSON.stringify(names.toSorted()) ? true : undefined;
      }).catch(() => expect(last).to.deep.equal(names.toSorted()));
      return performance.now() - startMs;
    },
    async reporter(id: string): Promise<ObservedReporter | undefined> {
      const { body } = await controlPlane.request('GET', `${path}/reversetunnelreporters`);
      return (body as { items: ObservedReporter[] }).items.find(({ spec }) => spec.id === id);
    },
    async stop(): Promise<void> {
      for (const heartbeat of heartbeats) clearInterval(heartbeat);
      client.close();
      await operator.kill();
    },
  };
}

type Opened = Awaited<ReturnType<typeof open>>;

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

describe('who may report what', function () {
  this.timeout(4 * DEADLINE_MS);
  const controlPlane = useControlPlane();
  let world: Opened;
  const begin = async (hint: string, flags?: string[]): Promise<void> => {
    world = await open(controlPlane(), hint, OPERATOR_RBAC_RULES, flags);
    await world.operator.ready();
  };
  afterEach(() => world.stop());

  it('everybody everything, until there is a policy; then nobody what no policy allows', async () => {
    await begin('deny-by-default');
    const stream = world.report('r-0', of('acme', 'a'));
    await world.rows('a');
    // Rows of a stream that has not spoken again since its claim are left to `--expire-after`.
    const heard = stream.responses.length;
    await poll(DEADLINE_MS, () => Promise.resolve(stream.responses.length >= heard + 2 ? true : undefined));
    const startMs = performance.now();
    await world.policy('nothing');
    expect((await stream.ended).code).to.equal(PERMISSION_DENIED);
    await world.rows();
    const goneMs = performance.now() - startMs;
    expect(goneMs).to.be.lessThan(SECONDS_MS);
    await poll(DEADLINE_MS, async () => {
      const reporter = await world.reporter('r-0');
      return reporter && conditionText(reporter.status, 'Connected') === 'False PolicyDenied'
        ? true
        : undefined;
    });
    expect((await world.report('r-0', of('acme', 'a')).ended).code).to.equal(PERMISSION_DENIED);
    expect(await world.operator.metric('reverse_tunnel_streams_closed_total{reason="policy"}')).to.equal(2);
    await world.remove('nothing');
    // As Envoy does: again and again until it is let in.
    const backMs = performance.now();
    await poll(DEADLINE_MS, async () => {
      const again = world.report('r-0', of('acme', 'a'));
      return await again.next().catch(() => undefined);
    });
    await world.rows('a');
    reportMeasurement(
      `a policy came: stream and row gone after ${seconds(goneMs)}; it went: back after ${seconds(performance.now() - backMs)}`,
    );
  });

  it('a policy with a mistake, too, is one: nobody reports, and its status says why', async () => {
    await begin('mistake');
    await world.policy(
      'mistaken',
      { ...EVERYTHING, peers: [{ spiffeID: 'spiffe://*.example.org/sa' }, ...ANYBODY] },
      { ...EVERYTHING, tenants: ['ac*me'] },
    );
    await world.kubectl('wait', '--for=condition=Accepted=False', 'rtp/mistaken', '--timeout=20s');
    expect((await world.report('r-0', of('acme', 'a')).ended).code).to.equal(PERMISSION_DENIED);
    const [header = '', line = ''] = (await world.kubectl('get', 'rtp', '-o', 'wide')).split('\n');
    expect(header.trimEnd().split(/\s{2,}/)).to.deep.equal(['NAME', 'ACCEPTED', 'RULES', 'AGE', 'MESSAGE']);
    const [name, accepted, rules, , message] = line.trimEnd().split(/\s{2,}/);
    expect([name, accepted, rules]).to.deep.equal(['mistaken', 'False', '0']);
    expect(message)
      .to.include(
        'spec.rules[0].peers[0].spiffeID: "spiffe://*.example.org/sa" must not have a * in the trust domain',
      )
      .and.include('spec.rules[1].tenants[0]: "ac*me" has a misplaced *');
    await world.change('mistaken', EVERYTHING, { ...EVERYTHING, tenants: ['acme*'] });
    await world.kubectl('wait', '--for=condition=Accepted', 'rtp/mistaken', '--timeout=20s');
    const table = await world.kubectl('get', 'rtp');
    expect(
      table
        .split('\n')[1]
        ?.split(/\s{2,}/)
        .slice(0, 3),
    ).to.deep.equal(['mistaken', 'True', '2']);
    reportMeasurement(table.trimEnd());
    const stream = world.report('r-0', of('acme', 'a'));
    await stream.next();
    await world.rows('a');
  });

  it("the right peer with another reporter's id: a NACK that names it, and no trace", async () => {
    await begin('other-id');
    await world.policy('edge', { ...EVERYTHING, reporters: { ids: ['r-*'], clusters: ['edge'] } });
    await world.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s');
    const mine = world.report('r-0', of('acme', 'a'));
    await mine.next();
    const other = world.report('s-0', of('acme', 'b'));
    const { error_detail: error } = await other.next();
    expect(error?.code).to.equal(PERMISSION_DENIED);
    expect(error?.message).to.match(/^node\.id: "s-0" in node\.cluster "edge" is not allowed by any/);
    expect((await other.ended).code).to.equal(PERMISSION_DENIED);
    await world.rows('a');
    expect(await world.reporter('s-0')).to.equal(undefined);
  });

  it("another tenant's tunnel is rejected and shown; a policy change acts on the open stream, both ways", async () => {
    await begin('set-aside');
    await world.policy('edge', { ...EVERYTHING, tenants: ['acme'] });
    await world.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s');
    const stream = world.report('r-0', of('acme', 'a'), of('globex', 'b'), of('globex', 'c'));
    let ended = false;
    void stream.ended.then(() => (ended = true));
    await world.rows('a');
    const reporter = await poll(DEADLINE_MS, async () => {
      const shown = await world.reporter('r-0');
      return shown && conditionText(shown.status, 'Synced') === 'False TunnelsRejected' ? shown : undefined;
    });
    expect(reporter.status.tunnels).to.deep.equal({ reported: 3, applied: 1, rejected: 2 });
    const synced = reporter.status.conditions.find(({ type }) => type === 'Synced');
    expect(JSON.stringify(synced)).to.include('2 tunnels were rejected: tunnel \\"b\\": tenant \\"globex\\"');
    const set = 'reverse_tunnel_tunnel_rejections_total{reason="policy"}';
    expect(await world.operator.metric(set)).to.equal(2);

    await world.change('edge', { ...EVERYTHING, tenants: ['acme', 'globex'] });
    const comeMs = await world.rows('a', 'b', 'c');
    await poll(DEADLINE_MS, async () => {
      const shown = await world.reporter('r-0');
      return shown && conditionText(shown.status, 'Synced') === 'True UpToDate' ? true : undefined;
    });
    await world.change('edge', { ...EVERYTHING, tenants: ['globex'] });
    const goMs = await world.rows('b', 'c');
    expect(Math.max(comeMs, goMs)).to.be.lessThan(SECONDS_MS);
    expect(ended).to.equal(false);
    reportMeasurement(
      `allowed: rows after ${seconds(comeMs)}; forbidden: rows gone after ${seconds(goMs)}; the same stream`,
    );
  });

  it('a tunnel that is not allowed refuses the report with --on-invalid nack', async () => {
    await begin('nack', ['--on-invalid', 'nack']);
    await world.policy('edge', { ...EVERYTHING, tenants: ['acme'] });
    await world.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s');
    const stream = world.report('r-0', of('acme', 'a'), of('globex', 'b'));
    expect((await stream.next()).error_detail?.message).to.match(/^tunnel "b": tenant "globex"/);
    await stream.ended;
    await world.rows();
  });

  it('more tunnels than the policy allows a reporter: RESOURCE_EXHAUSTED, what was there stays', async () => {
    await begin('limit');
    await world.policy('edge', { ...EVERYTHING, limits: { tunnels: 2 } });
    await world.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s');
    const stream = world.report('r-0', of('acme', 'a'), of('acme', 'b'));
    await world.rows('a', 'b');
    stream.send({ nonce: 1000, added_tunnels: [of('acme', 'c')] });
    const { details } = await stream.ended;
    expect(details).to.equal('reporter "r-0": would hold 3 tunnels, limit is 2');
    await world.rows('a', 'b');
  });

  it('a restart with policies writes no row, and rows of a reporter that is not back are left alone', async () => {
    await begin('restart');
    await world.policy('edge', { ...EVERYTHING, tenants: ['acme'] });
    const first = world.report('r-0', of('acme', 'a'), of('globex', 'b'));
    const second = world.report('r-1', of('acme', 'c'));
    await world.rows('a', 'c');
    first.cancel();
    second.cancel();
    const before = await listTunnelObjects(controlPlane().request, world.namespace);
    await world.operator.stop();
    const account = { namespace: world.namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const next = await startOperatorProcess({ kubeconfigPath, namespace: world.namespace });
    const client = dial(next.grpcAddress);
    try {
      await next.ready();
      const stream = openStream(client);
      const added = [of('acme', 'a'), of('globex', 'b')];
      stream.send({ node: { id: 'r-0', cluster: 'edge' }, nonce: 1, full_push: true, added_tunnels: added });
      await stream.next();
      await poll(DEADLINE_MS, async () => {
        const shown = await world.reporter('r-0');
        return shown?.status.owner?.replica === next.replica ? true : undefined;
      });
      const after = await listTunnelObjects(controlPlane().request, world.namespace);
      const versions = (rows: typeof after) =>
        rows.map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`).toSorted();
      expect(versions(after)).to.deep.equal(versions(before));
    } finally {
      client.close();
      await next.kill();
    }
  });

  it('that may not be listed: not ready, no row, and a line that says what to do', async () => {
    const rules = OPERATOR_RBAC_RULES.filter(({ resources }) => !resources.includes('reversetunnelpolicies'));
    world = await open(controlPlane(), 'no-right', rules);
    const stream = world.report('r-0', of('acme', 'a'));
    expect((await stream.next()).error_detail ?? undefined, 'ACKed meanwhile').to.equal(undefined);
    await poll(DEADLINE_MS, () =>
      world.operator.log.find(({ msg }) => msg.startsWith('cannot list ReverseTunnelPolicies')),
    );
    const answer = await poll(DEADLINE_MS, async () => {
      const text = await (await fetch(`http://${world.operator.httpAddress}/readyz`)).text();
      return text.includes('Policies') ? text : undefined;
    });
    expect(answer).to.include('ReverseTunnelPolicies not listed yet');
    expect(await listTunnelObjects(controlPlane().request, world.namespace)).to.deep.equal([]);
    const said = world.operator.log.filter(({ msg }) => msg.startsWith('cannot list ReverseTunnelPolicies'));
    expect(said).to.have.length(1);
    expect(said[0]?.['hint']).to.include('grant list and watch on reversetunnelpolicies');
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${world.namespace}/roles/operator`;
    const put = { metadata: { name: 'operator' }, rules: OPERATOR_RBAC_RULES };
    expect((await controlPlane().request('PUT', role, put)).status).to.equal(200);
    await world.operator.ready();
    await world.rows('a');
  });
});

describe('two replicas and a policy', function () {
  this.timeout(4 * DEADLINE_MS);
  const controlPlane = useControlPlane();

  it('both hold their streams to it, and its status is written once', async () => {
    const replicas = await createReplicas(controlPlane(), 'policy-replicas');
    const clients: Client[] = [];
    try {
      const both = [await replicas.start(), await replicas.start()];
      await replicas.waitForLeader(DEADLINE_MS);
      const path = `${API}/namespaces/${replicas.namespace}/reversetunnelpolicies`;
      const body = {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelPolicy',
        metadata: { name: 'edge' },
        spec: { rules: [{ ...EVERYTHING, tenants: ['acme'] }] },
      };
      expect((await controlPlane().request('POST', path, body)).status).to.equal(201);
      const wait = ['wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s'];
      expect((await controlPlane().kubectl(['-n', replicas.namespace, ...wait])).code).to.equal(0);
      for (const [index, { process }] of both.entries()) {
        await poll(DEADLINE_MS, async () =>
          (await process.metric('reverse_tunnel_policies{accepted="true"}')) === 1 ? true : undefined,
        );
        const client = dial(process.grpcAddress);
        clients.push(client);
        const added = [of('acme', `a-${index}`), of('globex', `b-${index}`)];
        openStream(client).send({
          node: { id: `r-${index}`, cluster: 'edge' },
          ...{ nonce: 1, full_push: true, added_tunnels: added },
        });
      }
      await poll(DEADLINE_MS, async () => {
        const rows = await listTunnelObjects(controlPlane().request, replicas.namespace);
        return rows.length === 2 && rows.every(({ spec }) => spec.tenantID === 'acme') ? true : undefined;
      });
      const written = (await replicas.writes()).filter(({ resource }) =>
        resource.startsWith('reversetunnelpolicies'),
      );
      expect(written.map(({ verb, resource }) => `${verb} ${resource}`)).to.deep.equal([
        'patch reversetunnelpolicies/status',
      ]);
    } finally {
      for (const client of clients) client.close();
      await replicas.stop();
    }
  });
});

describe('an operator that is newer than its CRDs', function () {
  this.timeout(FIRST_START_TIMEOUT_MS);

  it('works without the kind, says so once, and holds to policies when they come', async () => {
    const controlPlane = await startWithCrds();
    let world: Opened | undefined;
    try {
      const crd = 'reversetunnelpolicies.reverse-tunnel.io';
      expect((await controlPlane.kubectl(['delete', 'crd', crd])).code).to.equal(0);
      world = await open(controlPlane, 'older-crds');
      await world.operator.ready();
      const stream = world.report('r-0', of('acme', 'a'), of('globex', 'b'));
      await world.rows('a', 'b');
      const said = world.operator.log.filter(({ level }) => level === 'warn' || level === 'error');
      expect(
        said.filter(({ msg }) => msg.includes('ReverseTunnelPolicy CRD is not installed')),
      ).to.have.length(1);
      expect(
        said.filter(({ resource }) => String(resource).startsWith('reversetunnelpolicies')),
      ).to.have.length(1);

      await applyCrds(controlPlane);
      await world.policy('edge', { ...EVERYTHING, tenants: ['acme'] });
      const ms = await world.rows('a');
      let ended = false;
      void stream.ended.then(() => (ended = true));
      await world.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', '--timeout=20s');
      expect(ended).to.equal(false);
      reportMeasurement(`the kind was installed and a policy made: its rows are gone after ${seconds(ms)}`);
    } finally {
      await world?.stop();
      await controlPlane.stop();
    }
  });
});
