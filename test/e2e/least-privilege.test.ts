import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createPolicy } from '../support/create-policy.ts';
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { listCalls } from '../support/audit-log.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { OPERATOR_RBAC_RULES, poll, TOKEN_RBAC_RULES } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';
import { serverMaterial } from '../support/tls-fixtures.ts';
import { countTunnelObjects, waitForMatch } from '../support/expected-objects.ts';

const DEADLINE_MS = 90_000;

/** Every RBAC permission, in the form in which the audit log is read. */
const PERMISSIONS = [...OPERATOR_RBAC_RULES, ...TOKEN_RBAC_RULES].flatMap(({ apiGroups, resources, verbs }) =>
  resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}.${apiGroups[0] ?? ''}`)),
);

describe('permissions of the operator', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let folder: string;

  beforeEach(async () => {
    replicas = await createReplicas(controlPlane(), 'privilege');
    folder = await mkdtemp(join(tmpdir(), 'reverse-tunnel-privilege-'));
  });
  afterEach(async () => {
    await replicas.stop();
    await rm(folder, { recursive: true });
  });

  it('match its calls over the lifecycle of objects, slices, reporters and replicas: none is denied and none is unused', async function () {
    this.timeout(4 * DEADLINE_MS);
    const { namespace } = replicas;
    const file = async (name: string, text: string): Promise<string> => {
      await writeFile(join(folder, name), text);
      return join(folder, name);
    };
    const authority = createCertificateAuthority();
    const { cert, key } = serverMaterial(authority);
    const flags = [
      ...[
        '--auth',
        'token',
        '--tls-cert',
        await file('tls.crt', cert),
        '--tls-key',
        await file('tls.key', key),
      ],
      ...['--unknown-after', '1s', '--expire-after', '6s'],
    ];
    const { token } = await envoyToken();
    const identity = reporterIdentity({
      caFile: await file('ca.crt', authority.ca),
      tokenFile: await file('token', token),
      certFile: undefined,
      keyFile: undefined,
      serverName: undefined,
    });
    if (identity === undefined) throw new Error('the files were given');
    const dependencies = { dial: (address: string) => dialReportingService({ address, identity }) };

    const first = await replicas.start(flags);
    await replicas.start(flags);
    const waitForObjects = () => waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
    const fleet = await replicas.startFleet({ reporters: 4, tunnels: 5 }, dependencies);
    await waitForObjects();
    await replicas.waitUntilServed(4, DEADLINE_MS);
    await createAcceptedPolicy();
    await createExpectation();
    // A changed createdAt causes a PATCH, an ended tunnel a DELETE.
    const [changing, stopping] = fleet.reporters;
    const [flapped, gone] = changing?.expectedTunnels().keys() ?? [];
    changing?.flap(String(flapped));
    changing?.disconnectTunnel(String(gone));
    await fleet.settled();
    await waitForObjects();
    // A disconnected reporter: its objects become Unknown and are deleted, then its reporter object.
    stopping?.stop();
    await poll(DEADLINE_MS, async () => ((await replicas.reporters()).length === 3 ? true : undefined));
    expect(await countTunnelObjects(controlPlane().request, namespace)).to.equal(14);
    // One replica is killed, and one terminates and deletes its Lease.
    await replicas.end(first, 'SIGKILL');
    await replicas.start(flags);
    stopping?.start();
    await replicas.waitUntilServed(4, DEADLINE_MS);
    await waitForObjects();
    // The same for slices: a migration, a changed createdAt, an ended tunnel, and a disconnected reporter.
    await selectSlices();
    await waitForSlices(19);
    const [reconnected, ended] = changing?.expectedTunnels().keys() ?? [];
    changing?.flap(String(reconnected));
    changing?.disconnectTunnel(String(ended));
    await waitForSlices(18);
    stopping?.stop();
    await waitForSlices(13);
    for (const replica of [...replicas.running]) await replicas.end(replica, 'SIGTERM');

    // Events are sent asynchronously.
    const calls = await listCalls(controlPlane().auditLogPath ?? '', namespace);
    const denied = calls.filter(({ code }) => code === 401 || code === 403);
    expect(denied, 'denied').to.deep.equal([]);
    const used = new Set(calls.map(({ permission }) => permission));
    expect([...used].toSorted()).to.deep.equal(PERMISSIONS.toSorted());
  });

  /** Creates a policy and waits until the operator has accepted it. */
  async function createAcceptedPolicy(): Promise<void> {
    const { namespace } = replicas;
    const rule = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };
    await createPolicy(controlPlane(), namespace, 'everything', [rule]);
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnelpolicies`;
    await poll(DEADLINE_MS, async () => {
      const { body } = await controlPlane().request('GET', `${path}/everything`);
      const { conditions } = (body as { status: { conditions: { status: string }[] } }).status;
      return conditions[0]?.status === 'True' ? true : undefined;
    });
  }

  /** Sets the representation in the policy. */
  async function selectSlices(): Promise<void> {
    const patch = [{ op: 'add', path: '/spec/rules/0/representation', value: 'slices' }];
    const args = ['patch', 'rtp/everything', '--type=json', '-p', JSON.stringify(patch)];
    const { code, stderr } = await controlPlane().kubectl(['--namespace', replicas.namespace, ...args]);
    expect(code, stderr).to.equal(0);
  }

  /** Waits until slices contain that many tunnels and no tunnel has an object. */
  async function waitForSlices(tunnels: number): Promise<void> {
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${replicas.namespace}/reversetunnelslices`;
    await poll(DEADLINE_MS, async () => {
      const { body } = await controlPlane().request('GET', path);
      const { items } = body as { items: { spec: { tunnelCount: number } }[] };
      const count = items.reduce((sum, { spec }) => sum + spec.tunnelCount, 0);
      const objects = await countTunnelObjects(controlPlane().request, replicas.namespace);
      return count === tunnels && objects === 0 ? true : undefined;
    });
  }

  /** Creates an expectation and waits until the operator has evaluated it. */
  async function createExpectation(): Promise<void> {
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${replicas.namespace}/reversetunnelexpectations`;
    const { status } = await controlPlane().request('POST', path, {
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnelExpectation',
      metadata: { name: 'everything' },
      spec: { match: {} },
    });
    expect(status).to.equal(201);
    await poll(DEADLINE_MS, async () => {
      const { body } = await controlPlane().request('GET', `${path}/everything`);
      const { conditions } = (body as { status: { conditions: { status: string }[] } }).status;
      return conditions[0]?.status === 'True' ? true : undefined;
    });
  }

  async function envoyToken(): Promise<{ readonly token: string }> {
    const accounts = `/api/v1/namespaces/${replicas.namespace}/serviceaccounts`;
    await controlPlane().request('POST', accounts, { metadata: { name: 'envoy' } });
    const { body } = await controlPlane().request('POST', `${accounts}/envoy/token`, {
      spec: { audiences: ['reverse-tunnel-operator'], expirationSeconds: 600 },
    });
    return (body as { status: { token: string } }).status;
  }
});
