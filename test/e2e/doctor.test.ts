import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { waitForExit } from '../../control-plane/process-supervisor.ts';
import { startControlPlane, type ControlPlane } from '../../control-plane/start.ts';
import { applyCrds } from '../support/apply-crds.ts';
import { createNamespace, FIRST_START_TIMEOUT_MS, useControlPlane } from '../support/control-plane.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { names } from '../support/sample-tunnels.ts';
import { conditionOf } from '../support/reporter-objects.ts';
import { runDoctor, runCommand, type CheckResultJson } from '../support/cli-process.ts';
import { ROOT } from '../support/markdown-pages.ts';
import { OPERATOR_RBAC_RULES, poll } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';

const DEADLINE_MS = 60_000;
const GROUP = '/apis/reverse-tunnel.io/v1alpha1';
/** On a busy machine, the API server takes longer than the 250 ms that doctor tolerates. */
const SLOW_API = 'warn api';

/** Returns the results that are neither ok nor skipped, as `fail permissions`. */
function problems(findings: readonly CheckResultJson[]): string[] {
  return findings
    .filter(({ status }) => status === 'warn' || status === 'fail')
    .map(({ status, check }) => `${status} ${check}`)
    .filter((problem) => problem !== SLOW_API);
}

function messagesOf(findings: readonly CheckResultJson[], check: string): string {
  return findings
    .filter((finding) => finding.check === check)
    .map(({ message }) => message)
    .join('\n');
}

describe('doctor on a healthy installation', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let flags: string[];

  before(async function () {
    this.timeout(2 * DEADLINE_MS);
    replicas = await createReplicas(controlPlane(), 'doctor');
    const { account, process } = await replicas.start();
    await replicas.start();
    await replicas.startFleet({ reporters: 2, tunnels: 5 });
    await replicas.waitUntilServed(2, DEADLINE_MS);
    await replicas.waitForLeader(DEADLINE_MS);
    flags = [
      ...['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', replicas.namespace],
      ...['--grpc-address', process.grpcAddress, '--http-address', process.httpAddress],
      ...['--service-account', account, '--tls-client-ca', controlPlane().caFile],
    ];
  });
  after(() => replicas.stop());

  it('runs all checks, finds no problem and exits with 0', async () => {
    const { code, findings } = await runDoctor(flags);
    expect(problems(findings), JSON.stringify(findings)).to.deep.equal([]);
    expect(findings.map(({ check }) => check)).to.include.members([
      ...['api', 'crds', 'permissions', 'replicas', 'endpoints', 'certificates', 'reporters', 'objects'],
    ]);
    expect(messagesOf(findings, 'replicas')).to.match(/^2 replicas alive, leader is replica-\d-[0-9a-f]{8}$/);
    expect(messagesOf(findings, 'endpoints')).to.include('plaintext, SERVING').and.include(': ready');
    expect(messagesOf(findings, 'certificates')).to.include('--tls-client-ca');
    expect(messagesOf(findings, 'reporters')).to.equal('2 reporters connected and in sync');
    expect(messagesOf(findings, 'objects')).to.equal('10 ReverseTunnels, all Connected');
    expect(code).to.equal(0);
  });

  it('prints one line per check, and a remediation below each problem', async () => {
    const { code, stdout, stderr } = await runCommand(['doctor', ...flags, '--http-address', '127.0.0.1:1']);
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).to.match(/^ok {4}api {11}https:/);
    const failed = lines.findIndex((line) => line.startsWith('fail  endpoints'));
    expect(lines[failed]).to.include('--http-address 127.0.0.1:1: connect ECONNREFUSED');
    expect(lines[failed + 1]).to.match(/^ {20}→ /);
    // `SLOW_API` would be the only warning.
    expect(lines.at(-1)).to.match(/^1 failed, [01] warned, \d+ ok, 0 not checked$/);
    expect(stderr).to.equal('');
    expect(code).to.equal(1);
  });

  it('skips what the account of the operator may not read, without a failure', async () => {
    const own = await controlPlane().kubeconfigFor({
      namespace: replicas.namespace,
      serviceAccount: 'replica-0',
      rules: OPERATOR_RBAC_RULES,
    });
    const { code, findings } = await runDoctor([
      '--kubeconfig',
      own.kubeconfigPath,
      '-n',
      replicas.namespace,
    ]);
    expect(problems(findings), JSON.stringify(findings)).to.deep.equal([]);
    expect(findings.filter(({ status }) => status === 'skip').map(({ check }) => check)).to.deep.equal([
      'endpoints',
    ]);
    expect(code).to.equal(0);
  });

  it('names a missing permission and exits with 1', async () => {
    const rules = OPERATOR_RBAC_RULES.filter(({ resources }) => !resources.includes('reversetunnels/status'));
    const serviceAccount = 'without-status';
    await controlPlane().kubeconfigFor({ namespace: replicas.namespace, serviceAccount, rules });
    const { code, findings } = await runDoctor([...flags, '--service-account', serviceAccount]);
    expect(problems(findings)).to.deep.equal(['fail permissions']);
    expect(messagesOf(findings, 'permissions'))
      .to.include(`system:serviceaccount:${replicas.namespace}:without-status lacks 3 of `)
      .and.include('patch reversetunnels/status.reverse-tunnel.io')
      .and.include('patch reversetunnelreporters/status.reverse-tunnel.io')
      .and.include('patch reversetunnelpolicies/status.reverse-tunnel.io');
    expect(code).to.equal(1);
  });

  it('names an expired certificate and a file without one, and exits with 1', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'doctor-'));
    const expired = join(folder, 'tls.crt');
    const empty = join(folder, 'ca.crt');
    const validity = { notBeforeMs: Date.UTC(2024), notAfterMs: Date.UTC(2025) };
    await writeFile(expired, createCertificateAuthority().issue(validity).cert);
    await writeFile(empty, 'nothing\n');
    const { code, findings } = await runDoctor([...flags, '--tls-cert', expired, '--tls-client-ca', empty]);
    await rm(folder, { recursive: true });
    expect(problems(findings)).to.deep.equal(['fail certificates', 'fail certificates']);
    expect(messagesOf(findings, 'certificates'))
      .to.include(`--tls-cert ${expired}: CN=leaf expired`)
      .and.include('at 2025-01-01T00:00:00Z')
      .and.include(`--tls-client-ca ${empty}: contains no PEM certificate`);
    expect(code).to.equal(1);
  });

  it('warns about a disconnected reporter and exits with 0', async function () {
    this.timeout(DEADLINE_MS);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 2, reporterCluster: 'leaves' });
    await replicas.waitUntilServed(3, DEADLINE_MS);
    await fleet.stop();
    await poll(DEADLINE_MS, async () => {
      const { code, findings } = await runDoctor(flags);
      if (!messagesOf(findings, 'reporters').includes('1 of 3 reporters not connected')) return undefined;
      expect(code).to.equal(0);
      return true;
    });
  });
});

describe('doctor on a broken installation', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let flags: string[];

  beforeEach(async () => {
    namespace = await createNamespace(controlPlane(), 'doctor');
    flags = ['--kubeconfig', controlPlane().kubeconfigPath, '--namespace', namespace];
  });

  async function create(path: string, body: object): Promise<void> {
    const response = await controlPlane().request('POST', path, body);
    expect(response.status, JSON.stringify(response.body)).to.equal(201);
  }

  async function createLease(holderIdentity: string, renewTime: string): Promise<void> {
    await create(`/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`, {
      metadata: {
        name: names.leaseName(holderIdentity),
        labels: { 'app.kubernetes.io/managed-by': 'reverse-tunnel-operator' },
      },
      spec: { holderIdentity, leaseDurationSeconds: 15, renewTime },
    });
  }

  /** Creates a reporter object that is owned by `replica-a` and has these conditions. */
  async function createReporter(id: string, conditions: readonly object[]): Promise<void> {
    const path = `${GROUP}/namespaces/${namespace}/reversetunnelreporters`;
    const apiVersion = 'reverse-tunnel.io/v1alpha1';
    await create(path, {
      ...{ apiVersion, kind: 'ReverseTunnelReporter', metadata: { name: id }, spec: { id, cluster: 'edge' } },
    });
    const status = { owner: { replica: 'replica-a', epoch: 1 }, conditions };
    const patch = [
      'patch',
      'rtr',
      id,
      '--subresource=status',
      '--type=merge',
      '-p',
      JSON.stringify({ status }),
    ];
    const { code, stderr } = await controlPlane().kubectl(['--namespace', namespace, ...patch]);
    expect(code, stderr).to.equal(0);
  }

  it('exits with 1 if there is no replica', async () => {
    const { code, findings } = await runDoctor(flags);
    expect(problems(findings)).to.deep.equal(['fail replicas', 'warn reporters']);
    expect(messagesOf(findings, 'replicas')).to.include(`alive in ${namespace}: no replica Lease found`);
    expect(code).to.equal(1);
  });

  it('reports a replica as expired if its Lease is not renewed while it is watched', async () => {
    await createLease('replica-a', '2026-01-01T00:00:00.000000Z');
    const { code, findings } = await runDoctor(flags);
    expect(messagesOf(findings, 'replicas')).to.match(
      /no operator replica is alive .*: replica-a \(last renewed \d+d ago\)/,
    );
    expect(code).to.equal(1);
  });

  it('prints no results and exits with 130 if it is interrupted', async () => {
    await createLease('replica-a', '2026-01-01T00:00:00.000000Z');
    const child = spawn(process.execPath, ['src/main.ts', 'doctor', ...flags], { cwd: ROOT });
    let printed = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      printed += text;
    });
    const [waiting] = (await once(child.stderr.setEncoding('utf8'), 'data')) as [string];
    child.kill('SIGINT');
    await waitForExit(child);
    expect(waiting).to.equal('doctor: a Lease looks expired; watching for 7 s whether it is renewed\n');
    expect(printed).to.equal('');
    expect(child.exitCode).to.equal(130);
  });

  it('ignores the Lease of another program', async () => {
    const renewTime = new Date().toISOString().replace('Z', '000Z');
    await create(`/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`, {
      metadata: { name: 'other' },
      spec: { holderIdentity: 'other', leaseDurationSeconds: 15, renewTime },
    });
    const { findings } = await runDoctor(flags);
    expect(messagesOf(findings, 'replicas')).to.include('no replica Lease found');
  });

  it('names the reporters with an identity conflict, rejected writes or no stream', async () => {
    await createReporter('twin', [
      conditionOf('Connected', 'True', 'StreamOpen'),
      conditionOf('Synced', 'True', 'UpToDate'),
      conditionOf('IdentityConflict', 'True', 'DuplicateReporterID'),
    ]);
    await createReporter('rejected', [
      conditionOf('Connected', 'True', 'StreamOpen'),
      conditionOf('Synced', 'False', 'WritesRejected', 3_600_000, '2 writes rejected: 403 exceeded quota'),
    ]);
    await createReporter('disconnected', [
      conditionOf('Connected', 'False', 'HeartbeatTimeout'),
      conditionOf('Synced', 'Unknown', 'NotConnected'),
    ]);
    // Created last, as a Lease is valid for only 15 s, by a clock that is ahead within the tolerance.
    await createLease('replica-a', new Date(Date.now() + 10_000).toISOString().replace('Z', '000Z'));
    const { code, findings } = await runDoctor(flags);
    expect(problems(findings)).to.deep.equal([
      'warn replicas',
      'warn reporters',
      'fail synced',
      'fail identity',
    ]);
    expect(messagesOf(findings, 'reporters')).to.include(
      '1 of 3 reporters not connected: edge/disconnected (HeartbeatTimeout for',
    );
    expect(messagesOf(findings, 'synced')).to.include('edge/rejected').and.include('403 exceeded quota');
    expect(messagesOf(findings, 'identity')).to.include('edge/twin');
    expect(code).to.equal(1);
  });

  it('names the reporters of orphaned objects', async () => {
    const reporter = { id: 'gone', cluster: 'edge' };
    const spec = { tunnelName: 't', tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-1', reporter };
    await create(`${GROUP}/namespaces/${namespace}/reversetunnels`, {
      ...{
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnel',
        metadata: { name: 'orphan' },
        spec,
      },
    });
    const { findings } = await runDoctor(flags);
    expect(messagesOf(findings, 'objects')).to.equal(
      'ReverseTunnels without a ReverseTunnelReporter: edge/gone (1)',
    );
  });

  it('reports a namespace that does not exist', async () => {
    const { code, findings } = await runDoctor([...flags, '--namespace', 'no-such-namespace']);
    expect(messagesOf(findings, 'namespace')).to.equal('namespace no-such-namespace not found');
    expect(code).to.equal(1);
  });
});

describe('doctor and the installed CRDs', () => {
  let plane: ControlPlane;
  let flags: string[];
  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    plane = await startControlPlane();
    flags = ['--kubeconfig', plane.kubeconfigPath, '--namespace', 'default'];
  });
  after(() => plane.stop());

  it('names each missing CRD once, with the command that installs it', async () => {
    const { code, findings } = await runDoctor(flags);
    const crds = findings.filter(({ check, status }) => check === 'crds' && status === 'fail');
    expect(crds.map(({ message }) => message)).to.have.members([
      'reversetunnels.reverse-tunnel.io is not served at v1alpha1 with a status subresource',
      'reversetunnelreporters.reverse-tunnel.io is not served at v1alpha1 with a status subresource',
    ]);
    expect(crds[0]?.remediation).to.match(/kubectl apply --server-side -f crds\/\w+\.yaml/);
    expect(findings.some(({ check }) => check === 'objects' || check === 'reporters')).to.equal(false);
    expect(code).to.equal(1);
  });

  it('names a changed default and a missing selectable field', async function () {
    this.timeout(DEADLINE_MS);
    await applyCrds(plane);
    const version = '/spec/versions/0';
    const patch = [
      { op: 'remove', path: `${version}/selectableFields/5` },
      {
        op: 'replace',
        path: `${version}/schema/openAPIV3Schema/properties/status/default/state`,
        value: 'Unknown',
      },
      {
        op: 'replace',
        path: `${version}/schema/openAPIV3Schema/properties/spec/properties/tenantID/maxLength`,
        value: 99,
      },
    ];
    const name = 'reversetunnels.reverse-tunnel.io';
    const { code, stderr } = await plane.kubectl([
      'patch',
      'crd',
      name,
      '--type=json',
      '-p',
      JSON.stringify(patch),
    ]);
    expect(code, stderr).to.equal(0);
    // A CRD is served a moment before its schema is published.
    const finding = await poll(DEADLINE_MS, async () => {
      const { findings } = await runDoctor(flags);
      return findings.find(({ message }) =>
        message.includes('differs from the bundled CRD in required fields'),
      );
    });
    expect(finding.message).to.equal(
      `${name} differs from the bundled CRD in required fields: selectableFields status.state, status.default.state`,
    );
  });
});

describe('doctor with an invalid command line or kubeconfig', () => {
  it('reports why the API server is unreachable and exits with 1', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'doctor-'));
    const kubeconfig = join(folder, 'config');
    await writeFile(
      kubeconfig,
      JSON.stringify({
        'current-context': 'x',
        clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1' } }],
        users: [{ name: 'u', user: { token: 't' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      }),
    );
    const { code, findings } = await runDoctor(['--kubeconfig', kubeconfig]);
    const other = await runCommand(['doctor', '--kubeconfig', kubeconfig, '--context', 'y']);
    await rm(folder, { recursive: true });
    expect(problems(findings)).to.deep.equal(['fail api']);
    expect(messagesOf(findings, 'api')).to.include('ECONNREFUSED');
    expect(code).to.equal(1);
    expect(other.stderr).to.equal(`doctor: kubeconfig ${kubeconfig}: context y not found\n`);
    expect(other.code).to.equal(1);
  });

  for (const [args, message] of [
    [['--grpc-address', 'nowhere'], 'doctor: --grpc-address: "nowhere" must be host:port'],
    [['-o', 'yaml'], 'doctor: --output: "yaml" must be one of text, json'],
    [['--tls-cert='], 'doctor: --tls-cert: "" must not be empty'],
    [['--no-such-flag'], "doctor: unknown option '--no-such-flag'"],
  ] as const) {
    it(`rejects ${args.join(' ')} with one line and exit code 2`, async () => {
      const { code, stderr, stdout } = await runCommand(['doctor', ...args]);
      expect(stderr.split('\n')[0]).to.include(message);
      expect(stdout).to.equal('');
      expect(code).to.equal(2);
    });
  }

  it('reports a missing kubeconfig in one line and exits with 1', async () => {
    const { code, stderr } = await runCommand(['doctor', '--kubeconfig', '/no/such/file']);
    expect(stderr).to.equal('doctor: kubeconfig /no/such/file: no such file\n');
    expect(code).to.equal(1);
  });

  it('prints all flags for --help and exits with 0', async () => {
    const { code, stdout } = await runCommand(['doctor', '--help']);
    expect(stdout).to.include('--service-account').and.include('--context');
    expect(code).to.equal(0);
  });
});
