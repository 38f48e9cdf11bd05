/** ReverseTunnelPolicy with a running operator: authorization, rejected tunnels, and changes of policies. */
import type { Client } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { deleteCrds } from '../support/delete-crds.ts';
import { applyCrds } from '../support/apply-crds.ts';
import { runCommand, runDoctor } from '../support/cli-process.ts';
import { concurrent } from '../support/concurrent.ts';
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
import { createPolicy } from '../support/create-policy.ts';
import { conditionText, createReplicas, type ObservedReporter } from '../support/replicas.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { dial, openStream, type TestStream } from '../support/test-stream.ts';
import { listTunnelObjects } from '../support/expected-objects.ts';
import { tunnel, type TunnelFields } from '../support/wire.ts';

/** Policy changes take effect within a second; nothing else would have the same effect within this time. */
const DEADLINE_MS = 60_000;
/** The same limit for kubectl. */
const WAIT_TIMEOUT = `--timeout=${DEADLINE_MS / 1000}s`;
const HEARTBEAT_MS = 100;
const PERMISSION_DENIED = 7;
const API = '/apis/reverse-tunnel.io/v1alpha1';

const ANY_PEER = [{ any: true }];
const ALLOW_ALL = { peers: ANY_PEER, reporters: { ids: ['*'] }, tenants: ['*'] };

function tunnelOf(tenant: string, name: string): TunnelFields {
  return { ...tunnel(name), identity: { tenant_id: tenant, cluster_id: 'eu-1', node_id: name } };
}

/** Starts an operator in a namespace of its own and provides what an administrator does there. */
async function openFixture(
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
    kubeconfigPath,
    operator,
    kubectl,
    createPolicy: (name: string, ...rules: object[]): Promise<void> =>
      createPolicy(controlPlane, namespace, name, rules),
    updatePolicy: (name: string, ...rules: object[]): Promise<string> =>
      kubectl('patch', 'rtp', name, '--type=merge', '-p', JSON.stringify({ spec: { rules } })),
    deletePolicy: (name: string): Promise<string> => kubectl('delete', 'rtp', name),
    /** Opens a stream, sends a full push, and then heartbeats as Envoy does. */
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
    /** Waits until exactly these tunnels have an object. Returns the time in milliseconds. */
    async waitForTunnels(...names: string[]): Promise<number> {
      const startMs = performance.now();
      let last: string[] = [];
      await poll(DEADLINE_MS, async () => {
        const objects = await listTunnelObjects(controlPlane.request, namespace);
        last = objects.map(({ spec }) => spec.tunnelName).toSorted();
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

type Fixture = Awaited<ReturnType<typeof openFixture>>;

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}

describe('reporting with policies', () => {
  const controlPlane = useControlPlane();
  // All of them mostly wait, for an operator or for its effects.
  const it = concurrent({
    timeoutMs: 6 * DEADLINE_MS,
    open: () => Promise.resolve(createScope()),
    close: ({ fixtures }) => Promise.all(fixtures.map((fixture) => fixture.stop())),
  });

  /** Returns what starts the operators of one scenario. */
  function createScope() {
    const fixtures: Fixture[] = [];
    const open = async (hint: string, rules = OPERATOR_RBAC_RULES, flags?: string[]): Promise<Fixture> => {
      const fixture = await openFixture(controlPlane(), hint, rules, flags);
      fixtures.push(fixture);
      return fixture;
    };
    return {
      fixtures,
      open,
      /** Starts an operator with all permissions. Resolves when it is ready. */
      start: async (hint: string, flags?: string[]): Promise<Fixture> => {
        const fixture = await open(hint, OPERATOR_RBAC_RULES, flags);
        await fixture.operator.ready();
        return fixture;
      },
    };
  }

  it('allows everything without a policy and denies by default with one', async ({ start }, report) => {
    const fixture = await start('deny-by-default');
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'));
    await fixture.waitForTunnels('a');
    // Objects of a stream that is not confirmed fresh are kept until `--expire-after`.
    const responses = stream.responses.length;
    await poll(DEADLINE_MS, () =>
      Promise.resolve(stream.responses.length >= responses + 2 ? true : undefined),
    );
    const startMs = performance.now();
    await fixture.createPolicy('nothing');
    expect((await stream.ended).code).to.equal(PERMISSION_DENIED);
    await fixture.waitForTunnels();
    const goneMs = performance.now() - startMs;
    await poll(DEADLINE_MS, async () => {
      const reporter = await fixture.reporter('r-0');
      return reporter && conditionText(reporter.status, 'Connected') === 'False PolicyDenied'
        ? true
        : undefined;
    });
    expect((await fixture.report('r-0', tunnelOf('acme', 'a')).ended).code).to.equal(PERMISSION_DENIED);
    expect(await fixture.operator.metric('reverse_tunnel_streams_closed_total{reason="policy"}')).to.equal(2);
    await fixture.deletePolicy('nothing');
    // As Envoy does, it reconnects until it is accepted.
    const backMs = performance.now();
    await poll(DEADLINE_MS, async () => {
      const again = fixture.report('r-0', tunnelOf('acme', 'a'));
      return await again.next().catch(() => undefined);
    });
    await fixture.waitForTunnels('a');
    report(
      `policy created: stream and object gone after ${seconds(goneMs)}; deleted: back after ${seconds(performance.now() - backMs)}`,
    );
  });

  it('rejects every client with --require-policy until a policy exists, and again when the last one is deleted', async ({
    start,
  }) => {
    const fixture = await start('required', ['--require-policy', 'true']);
    const rejected = async (): Promise<void> => {
      const { code, details } = await fixture.report('r-0', tunnelOf('acme', 'a')).ended;
      expect(code).to.equal(PERMISSION_DENIED);
      expect(details).to.match(/^no ReverseTunnelPolicy exists, and --require-policy is set/);
      expect(await fixture.operator.metric('reverse_tunnel_required_policy_missing')).to.equal(1);
    };
    await rejected();
    const warning = fixture.operator.log.find(({ msg }) => msg.startsWith('no ReverseTunnelPolicy exists'));
    expect(warning?.level).to.equal('warn');
    const flags = ['--kubeconfig', fixture.kubeconfigPath, '--namespace', fixture.namespace];
    const { code, findings } = await runDoctor(flags);
    expect(code).to.equal(1);
    const finding = findings.find(({ check }) => check === 'policies');
    expect(finding?.message).to.match(
      /^no ReverseTunnelPolicy exists .* --require-policy rejects every client$/,
    );

    await fixture.createPolicy('edge', ALLOW_ALL);
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'));
    await fixture.waitForTunnels('a');
    expect(await fixture.operator.metric('reverse_tunnel_required_policy_missing')).to.equal(0);

    await fixture.deletePolicy('edge');
    expect((await stream.ended).code).to.equal(PERMISSION_DENIED);
    await rejected();
  });

  it('denies all reports while the only policy is invalid, and explains the errors in its status', async ({
    start,
  }, report) => {
    const fixture = await start('invalid');
    await fixture.createPolicy(
      'invalid-policy',
      { ...ALLOW_ALL, peers: [{ spiffeID: 'spiffe://*.example.org/sa' }, ...ANY_PEER] },
      { ...ALLOW_ALL, tenants: ['ac*me'] },
    );
    await fixture.kubectl('wait', '--for=condition=Accepted=False', 'rtp/invalid-policy', WAIT_TIMEOUT);
    expect((await fixture.report('r-0', tunnelOf('acme', 'a')).ended).code).to.equal(PERMISSION_DENIED);
    const [header = '', line = ''] = (await fixture.kubectl('get', 'rtp', '-o', 'wide')).split('\n');
    expect(header.trimEnd().split(/\s{2,}/)).to.deep.equal(['NAME', 'ACCEPTED', 'RULES', 'AGE', 'MESSAGE']);
    const [name, accepted, rules, , message] = line.trimEnd().split(/\s{2,}/);
    expect([name, accepted, rules]).to.deep.equal(['invalid-policy', 'False', '0']);
    expect(message)
      .to.include(
        'spec.rules[0].peers[0].spiffeID: "spiffe://*.example.org/sa" must not have a * in the trust domain',
      )
      .and.include('spec.rules[1].tenants[0]: "ac*me" has a misplaced *');
    await fixture.updatePolicy('invalid-policy', ALLOW_ALL, { ...ALLOW_ALL, tenants: ['acme*'] });
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/invalid-policy', WAIT_TIMEOUT);
    const table = await fixture.kubectl('get', 'rtp');
    expect(
      table
        .split('\n')[1]
        ?.split(/\s{2,}/)
        .slice(0, 3),
    ).to.deep.equal(['invalid-policy', 'True', '2']);
    report(table.trimEnd());
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'));
    await stream.next();
    await fixture.waitForTunnels('a');
  });

  it("rejects an allowed peer with another reporter's ID by a NACK, without creating objects", async ({
    start,
  }) => {
    const fixture = await start('other-id');
    await fixture.createPolicy('edge', { ...ALLOW_ALL, reporters: { ids: ['r-*'], clusters: ['edge'] } });
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
    const mine = fixture.report('r-0', tunnelOf('acme', 'a'));
    await mine.next();
    const other = fixture.report('s-0', tunnelOf('acme', 'b'));
    const { error_detail: error } = await other.next();
    expect(error?.code).to.equal(PERMISSION_DENIED);
    expect(error?.message).to.match(/^node\.id: "s-0" in node\.cluster "edge" is not allowed by any/);
    expect((await other.ended).code).to.equal(PERMISSION_DENIED);
    await fixture.waitForTunnels('a');
    expect(await fixture.reporter('s-0')).to.equal(undefined);
  });

  it("rejects another tenant's tunnels, shows them in the status, and applies policy changes to the open stream", async ({
    start,
  }, report) => {
    const fixture = await start('set-aside');
    await fixture.createPolicy('edge', { ...ALLOW_ALL, tenants: ['acme'] });
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
    const stream = fixture.report(
      'r-0',
      tunnelOf('acme', 'a'),
      tunnelOf('globex', 'b'),
      tunnelOf('globex', 'c'),
    );
    let ended = false;
    void stream.ended.then(() => (ended = true));
    await fixture.waitForTunnels('a');
    const reporter = await poll(DEADLINE_MS, async () => {
      const observed = await fixture.reporter('r-0');
      return observed && conditionText(observed.status, 'Synced') === 'False TunnelsRejected'
        ? observed
        : undefined;
    });
    expect(reporter.status.tunnels).to.deep.equal({ reported: 3, applied: 1, rejected: 2 });
    const synced = reporter.status.conditions.find(({ type }) => type === 'Synced');
    expect(JSON.stringify(synced)).to.include('2 tunnels were rejected: tunnel \\"b\\": tenant \\"globex\\"');
    const rejections = 'reverse_tunnel_tunnel_rejections_total{reason="policy"}';
    expect(await fixture.operator.metric(rejections)).to.equal(2);

    await fixture.updatePolicy('edge', { ...ALLOW_ALL, tenants: ['acme', 'globex'] });
    const createdMs = await fixture.waitForTunnels('a', 'b', 'c');
    await poll(DEADLINE_MS, async () => {
      const observed = await fixture.reporter('r-0');
      return observed && conditionText(observed.status, 'Synced') === 'True UpToDate' ? true : undefined;
    });
    await fixture.updatePolicy('edge', { ...ALLOW_ALL, tenants: ['globex'] });
    const deletedMs = await fixture.waitForTunnels('b', 'c');
    expect(ended).to.equal(false);
    report(
      `allowed: objects created after ${seconds(createdMs)}; denied: deleted after ${seconds(deletedMs)}; same stream`,
    );
  });

  it('rejects the whole report with --on-invalid nack when a tunnel is not allowed', async ({ start }) => {
    const fixture = await start('nack', ['--on-invalid', 'nack']);
    await fixture.createPolicy('edge', { ...ALLOW_ALL, tenants: ['acme'] });
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'), tunnelOf('globex', 'b'));
    expect((await stream.next()).error_detail?.message).to.match(/^tunnel "b": tenant "globex"/);
    await stream.ended;
    await fixture.waitForTunnels();
  });

  it('answers RESOURCE_EXHAUSTED above the tunnel limit of a policy and keeps the existing objects', async ({
    start,
  }) => {
    const fixture = await start('limit');
    await fixture.createPolicy('edge', { ...ALLOW_ALL, limits: { tunnels: 2 } });
    await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'), tunnelOf('acme', 'b'));
    await fixture.waitForTunnels('a', 'b');
    stream.send({ nonce: 1000, added_tunnels: [tunnelOf('acme', 'c')] });
    const { details } = await stream.ended;
    expect(details).to.equal('reporter "r-0": would hold 3 tunnels, limit is 2');
    await fixture.waitForTunnels('a', 'b');
  });

  it('writes no objects on a restart with policies and keeps those of reporters that have not reconnected', async ({
    start,
  }) => {
    const fixture = await start('restart');
    await fixture.createPolicy('edge', { ...ALLOW_ALL, tenants: ['acme'] });
    const first = fixture.report('r-0', tunnelOf('acme', 'a'), tunnelOf('globex', 'b'));
    const second = fixture.report('r-1', tunnelOf('acme', 'c'));
    await fixture.waitForTunnels('a', 'c');
    first.cancel();
    second.cancel();
    const before = await listTunnelObjects(controlPlane().request, fixture.namespace);
    await fixture.operator.stop();
    const account = { namespace: fixture.namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const next = await startOperatorProcess({ kubeconfigPath, namespace: fixture.namespace });
    const client = dial(next.grpcAddress);
    try {
      await next.ready();
      const stream = openStream(client);
      const added = [tunnelOf('acme', 'a'), tunnelOf('globex', 'b')];
      stream.send({ node: { id: 'r-0', cluster: 'edge' }, nonce: 1, full_push: true, added_tunnels: added });
      await stream.next();
      await poll(DEADLINE_MS, async () => {
        const observed = await fixture.reporter('r-0');
        return observed?.status.owner?.replica === next.replica ? true : undefined;
      });
      const after = await listTunnelObjects(controlPlane().request, fixture.namespace);
      const versions = (objects: typeof after) =>
        objects.map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`).toSorted();
      expect(versions(after)).to.deep.equal(versions(before));
    } finally {
      client.close();
      await next.kill();
    }
  });

  it('is not ready and writes no objects while policies cannot be listed, and logs a remedy', async ({
    open,
  }) => {
    const rules = OPERATOR_RBAC_RULES.filter(({ resources }) => !resources.includes('reversetunnelpolicies'));
    const fixture = await open('no-right', rules);
    const stream = fixture.report('r-0', tunnelOf('acme', 'a'));
    expect((await stream.next()).error_detail ?? undefined, 'ACKed meanwhile').to.equal(undefined);
    await poll(DEADLINE_MS, () =>
      fixture.operator.log.find(({ msg }) => msg.startsWith('cannot list ReverseTunnelPolicies')),
    );
    const answer = await poll(DEADLINE_MS, async () => {
      const text = await (await fetch(`http://${fixture.operator.httpAddress}/readyz`)).text();
      return text.includes('Policies') ? text : undefined;
    });
    expect(answer).to.include('ReverseTunnelPolicies not listed yet');
    expect(await listTunnelObjects(controlPlane().request, fixture.namespace)).to.deep.equal([]);
    const logged = fixture.operator.log.filter(({ msg }) =>
      msg.startsWith('cannot list ReverseTunnelPolicies'),
    );
    expect(logged).to.have.length(1);
    expect(logged[0]?.['hint']).to.include('grant list and watch on reversetunnelpolicies');
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${fixture.namespace}/roles/operator`;
    const put = { metadata: { name: 'operator' }, rules: OPERATOR_RBAC_RULES };
    expect((await controlPlane().request('PUT', role, put)).status).to.equal(200);
    await fixture.operator.ready();
    await fixture.waitForTunnels('a');
  });
});

describe('two replicas with a policy', function () {
  this.timeout(4 * DEADLINE_MS);
  const controlPlane = useControlPlane();

  it('both enforce the policy, and its status is written once', async () => {
    const replicas = await createReplicas(controlPlane(), 'policy-replicas');
    const clients: Client[] = [];
    try {
      const both = [await replicas.start(), await replicas.start()];
      await replicas.waitForLeader(DEADLINE_MS);
      await createPolicy(controlPlane(), replicas.namespace, 'edge', [{ ...ALLOW_ALL, tenants: ['acme'] }]);
      const wait = ['wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT];
      expect((await controlPlane().kubectl(['-n', replicas.namespace, ...wait])).code).to.equal(0);
      for (const [index, { process }] of both.entries()) {
        await poll(DEADLINE_MS, async () =>
          (await process.metric('reverse_tunnel_policies{accepted="true"}')) === 1 ? true : undefined,
        );
        const client = dial(process.grpcAddress);
        clients.push(client);
        const added = [tunnelOf('acme', `a-${index}`), tunnelOf('globex', `b-${index}`)];
        openStream(client).send({
          node: { id: `r-${index}`, cluster: 'edge' },
          ...{ nonce: 1, full_push: true, added_tunnels: added },
        });
      }
      await poll(DEADLINE_MS, async () => {
        const objects = await listTunnelObjects(controlPlane().request, replicas.namespace);
        return objects.length === 2 && objects.every(({ spec }) => spec.tenantID === 'acme')
          ? true
          : undefined;
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

describe('operator that is newer than its CRDs', function () {
  this.timeout(FIRST_START_TIMEOUT_MS);

  it('works without the optional CRDs, logs each once, and serves them once they are installed, or installed again', async () => {
    const controlPlane = await startWithCrds();
    let fixture: Fixture | undefined;
    try {
      const optional = ['policies', 'expectations', 'slices'].map(
        (name) => `reversetunnel${name}.reverse-tunnel.io`,
      );
      await deleteCrds(controlPlane, optional);
      fixture = await openFixture(controlPlane, 'older-crds');
      await fixture.operator.ready();
      const stream = fixture.report('r-0', tunnelOf('acme', 'a'), tunnelOf('globex', 'b'));
      await fixture.waitForTunnels('a', 'b');
      const logged = fixture.operator.log.filter(({ level }) => level === 'warn' || level === 'error');
      expect(
        logged.filter(({ msg }) => msg.includes('ReverseTunnelPolicy CRD is not installed')),
      ).to.have.length(1);
      expect(
        logged.filter(({ resource }) => String(resource).startsWith('reversetunnelpolicies')),
      ).to.have.length(1);
      const { operator } = fixture;
      const loggedAbout = (plural: string): string[] | undefined => {
        const lines = operator.log.filter(({ level }) => level === 'warn' || level === 'error');
        const about = lines.filter(({ resource }) => String(resource).startsWith(plural));
        return about.length === 0 ? undefined : about.map(({ msg }) => msg);
      };
      for (const [plural, line] of [
        [
          'reversetunnelexpectations',
          'ReverseTunnelExpectation CRD is not installed; expectations are not evaluated',
        ],
        [
          'reversetunnelslices',
          'ReverseTunnelSlice CRD is not installed; tunnels are represented by ReverseTunnel objects only',
        ],
      ] as const) {
        expect(await poll(DEADLINE_MS, () => loggedAbout(plural))).to.deep.equal([line]);
      }
      const { findings } = await runDoctor(['--kubeconfig', fixture.kubeconfigPath, '-n', fixture.namespace]);
      for (const crd of optional)
        expect(findings.map(({ status, message }) => `${status} ${message}`)).to.include(
          `warn ${crd} is not served at v1alpha1 with a status subresource`,
        );
      const flags = ['--kubeconfig', controlPlane.kubeconfigPath, '-n', fixture.namespace];
      const shown = await runCommand(['status', ...flags]);
      expect([shown.code, shown.stderr]).to.deep.equal([0, '']);

      await applyCrds(controlPlane);
      const path = `${API}/namespaces/${fixture.namespace}/reversetunnelexpectations`;
      const expectation = {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelExpectation',
        metadata: { name: 'edge' },
        spec: { match: { nodeID: 'a' } },
      };
      expect((await controlPlane.request('POST', path, expectation)).status).to.equal(201);
      await fixture.kubectl('wait', '--for=condition=Ready', 'rte/edge', WAIT_TIMEOUT);
      expect(loggedAbout('reversetunnelexpectations')).to.have.length(1);
      await fixture.createPolicy('edge', { ...ALLOW_ALL, tenants: ['acme'] });
      const ms = await fixture.waitForTunnels('a');
      let ended = false;
      void stream.ended.then(() => (ended = true));
      await fixture.kubectl('wait', '--for=condition=Accepted', 'rtp/edge', WAIT_TIMEOUT);
      await fixture.updatePolicy('edge', { ...ALLOW_ALL, tenants: ['acme'], representation: 'slices' });
      const sliceExists = ['--for=create', 'rts', '-l', 'reverse-tunnel.io/tenant=acme'];
      await fixture.kubectl('wait', ...sliceExists, WAIT_TIMEOUT);
      await fixture.waitForTunnels();

      const isSynced = (reason: string): string =>
        `--for=jsonpath={.status.conditions[?(@.type=="Synced")].reason}=${reason}`;
      const slices = 'reversetunnelslices.reverse-tunnel.io';
      await deleteCrds(controlPlane, [slices]);
      await fixture.kubectl('wait', isSynced('WritesRejected'), 'rtr', '--all', WAIT_TIMEOUT);
      await applyCrds(controlPlane);
      await fixture.kubectl('wait', ...sliceExists, WAIT_TIMEOUT);
      await fixture.kubectl('wait', isSynced('TunnelsRejected'), 'rtr', '--all', WAIT_TIMEOUT);
      expect(ended).to.equal(false);
      reportMeasurement(`CRD installed and policy created: denied objects gone after ${seconds(ms)}`);
    } finally {
      await fixture?.stop();
      await controlPlane.stop();
    }
  });
});
