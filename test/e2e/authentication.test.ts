import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { waitForExit, spawnGuarded } from '../../control-plane/process-supervisor.ts';
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulate/fleet.ts';
import { countTunnelWrites, writesBetween, listWrites } from '../support/audit-log.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  runOperatorToExit,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { concurrent } from '../support/concurrent.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { serverMaterial } from '../support/tls-fixtures.ts';
import { waitForMatch } from '../support/expected-objects.ts';

const DEADLINE_MS = 60_000;
const ROOT = new URL('../..', import.meta.url).pathname;

/** Creates a namespace with the operator's ServiceAccount, and a folder with files of a CA that both sides trust. */
async function openFixture(controlPlane: ControlPlaneClient) {
  const fleets: Fleet[] = [];
  const operators: OperatorProcess[] = [];
  const folder = await mkdtemp(join(tmpdir(), 'reverse-tunnel-tls-'));
  const namespace = await createNamespace(controlPlane, 'mtls');
  const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
  const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
  const authority = createCertificateAuthority();

  /** Replaces a file atomically, as a mounted Secret is updated. */
  const put = async (name: string, text: string): Promise<void> => {
    const path = join(folder, name);
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  const putServerFiles = async (): Promise<void> => {
    const { cert, key } = serverMaterial(authority);
    await put('tls.crt', cert);
    await put('tls.key', key);
  };
  const flagsOf = (prefix: string, files: Readonly<Record<string, string>>): string[] =>
    Object.entries(files).flatMap(([flag, name]) => [`--${prefix}${flag}`, join(folder, name)]);
  const tlsFlags = [
    ...['--auth', 'mtls'],
    ...flagsOf('tls-', { cert: 'tls.crt', key: 'tls.key', 'client-ca': 'client-ca.crt' }),
  ];

  const startWith = async (...flags: string[]): Promise<OperatorProcess> => {
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    operators.push(operator);
    return operator;
  };

  await putServerFiles();
  const { cert, key } = authority.issue({ uris: ['spiffe://edge/ns/edge/sa/envoy'], usage: 'client' });
  await put('peer.crt', cert);
  await put('peer.key', key);
  await put('ca.crt', authority.ca);
  await put('client-ca.crt', authority.ca);

  return {
    ...{ folder, namespace, kubeconfigPath, put, putServerFiles, flagsOf, tlsFlags },
    auditLogPath: controlPlane.auditLogPath ?? '',
    waitForObjects: (fleet: Fleet) => waitForMatch(fleet, controlPlane.request, namespace, DEADLINE_MS),
    startWith,
    startOperator: async (...flags: string[]): Promise<OperatorProcess> => {
      const operator = await startWith(...tlsFlags, ...flags);
      await operator.ready();
      return operator;
    },
    startFleet: async (options: Partial<FleetOptions> & { address: string }): Promise<Fleet> => {
      const identity = reporterIdentity({
        caFile: join(folder, 'ca.crt'),
        certFile: join(folder, 'peer.crt'),
        keyFile: join(folder, 'peer.key'),
        serverName: undefined,
        tokenFile: undefined,
      });
      if (identity === undefined) throw new Error('the files were given');
      const fleet = createFleet(
        { connectRetryIntervalMs: 200, maxRetries: PATIENT_MAX_RETRIES, ...options },
        { dial: (address) => dialReportingService({ address, identity }) },
      );
      fleets.push(fleet);
      await fleet.start();
      return fleet;
    },
    close: async (): Promise<void> => {
      await Promise.all(fleets.map((fleet) => fleet.stop()));
      await Promise.all(operators.map((operator) => operator.kill()));
      await rm(folder, { recursive: true });
    },
  };
}

type Fixture = Awaited<ReturnType<typeof openFixture>>;

/** Runs alone, because many handshakes need CPU and clients must reconnect in time. */
describe('mutual TLS with 100 reporters', () => {
  const controlPlane = useControlPlane();
  let fixture: Fixture;

  before(async () => {
    fixture = await openFixture(controlPlane());
  });
  after(() => fixture.close());

  it('keeps 100 reporters connected while TLS files are rotated, ignores broken files, and rejects certificates of a replaced CA', async function () {
    this.timeout(5 * DEADLINE_MS);
    const { put, putServerFiles, waitForObjects, startOperator, startFleet } = fixture;
    const operator = await startOperator('--report-interval', '1s');
    expect(await operator.metric('reverse_tunnel_insecure')).to.equal(0);
    const fleet = await startFleet({
      address: operator.grpcAddress,
      reporters: 100,
      tunnels: 3,
      rampUpMs: 2000,
    });
    await fleet.settled();
    await waitForObjects(fleet);

    const reloads = (): number =>
      operator.log.filter(({ msg }) => msg.startsWith('reloaded TLS files')).length;
    await put('tls.crt', 'broken');
    await poll(DEADLINE_MS, () =>
      operator.log.find(({ msg }) => msg.startsWith('failed to reload TLS files')),
    );
    const count = reloads();
    await putServerFiles();
    await put('client-ca.crt', createCertificateAuthority().ca);
    await poll(DEADLINE_MS, () => (reloads() > count ? true : undefined));
    // Certificate, key and CA may be read in two polls; the last one counts.
    await poll(DEADLINE_MS, async () => {
      const [reporter] = fleet.reporters;
      reporter?.resetConnection();
      const rejected = 'reverse_tunnel_connections_rejected_total{reason="certificate_untrusted"}';
      return (await operator.metric(rejected)) > 0 ? true : undefined;
    });
    const { acks } = fleet.statistics();
    await poll(DEADLINE_MS, () => (fleet.statistics().acks > acks + 200 ? true : undefined));
    const { connected } = fleet.statistics();
    reportMeasurement(
      `${connected} of 100 streams still open after two rotations; the one that was reset is rejected`,
    );
    expect(connected).to.equal(99);
  });
});

describe('mutual TLS, end to end', () => {
  const controlPlane = useControlPlane();
  // One scenario waits for streams to reach their maximum age.
  const it = concurrent({
    timeoutMs: 5 * DEADLINE_MS,
    open: () => openFixture(controlPlane()),
    close: (fixture) => fixture.close(),
  });

  it('reconnects of streams that reach their maximum age cause no object writes and no disconnected reporters', async (fixture, report) => {
    const { namespace, auditLogPath, waitForObjects, startOperator, startFleet } = fixture;
    const operator = await startOperator('--report-interval', '1s', '--max-stream-age', '10s');
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 5, tunnels: 20 });
    await fleet.settled();
    await waitForObjects(fleet);
    const before = await countTunnelWrites(auditLogPath, namespace);
    const count = (await listWrites(auditLogPath, namespace)).length;
    await poll(DEADLINE_MS, async () =>
      (await operator.metric('reverse_tunnel_streams_closed_total{reason="max_age"}')) >= 10
        ? true
        : undefined,
    );
    await fleet.settled();
    await waitForObjects(fleet);
    const counted = writesBetween(before, await countTunnelWrites(auditLogPath, namespace));
    const reporterWrites = (await listWrites(auditLogPath, namespace))
      .slice(count)
      .filter(({ resource }) => resource.startsWith('reversetunnelreporters'));
    const { connects } = fleet.statistics();
    report(`${connects - 5} reconnects: ${reporterWrites.length} writes to reporter objects`);
    expect(counted).to.deep.equal({ create: 0, patch: 0, delete: 0, status: 0, failed: 0 });
    expect(operator.log.filter(({ msg }) => msg.startsWith('reporter disconnected'))).to.deep.equal([]);
  });

  it('simulate authenticates with a certificate and a key from files', async (fixture) => {
    const { flagsOf, startOperator } = fixture;
    const operator = await startOperator();
    const simulate = spawnGuarded(
      process.execPath,
      [
        ...[
          'src/main.ts',
          'simulate',
          '--address',
          operator.grpcAddress,
          '--reporters',
          '3',
          '--duration',
          '10s',
        ],
        ...flagsOf('tls-', { ca: 'ca.crt', cert: 'peer.crt', key: 'peer.key' }),
      ],
      { cwd: ROOT, env: { PATH: process.env['PATH'] }, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    simulate.stdout?.resume();
    let errors = '';
    simulate.stderr?.setEncoding('utf8').on('data', (text: string) => (errors += text));
    await waitForExit(simulate);
    expect(simulate.exitCode).to.equal(0);
    expect(errors, 'an IP address is not sent as the TLS server name').not.to.contain('Warning');
  });

  it('exits with code 1 and one line that names the flags when a TLS file is missing or invalid', async (fixture) => {
    const { folder, kubeconfigPath, put, tlsFlags } = fixture;
    const base = [
      '--kubeconfig',
      kubeconfigPath,
      '--grpc-address',
      '127.0.0.1:0',
      '--http-address',
      '127.0.0.1:0',
    ];
    await put('tls.key', 'not a key');
    const broken = await runOperatorToExit([...base, ...tlsFlags]);
    expect(broken.code).to.equal(1);
    expect(broken.stderr).to.match(
      /^reverse-tunnel-operator: --tls-cert, --tls-key, --tls-client-ca: certificate and key: [^\n]+\n$/,
    );
    await rm(join(folder, 'tls.key'));
    const missing = await runOperatorToExit([...base, ...tlsFlags]);
    expect(missing.code).to.equal(1);
    expect(missing.stderr).to.match(/^reverse-tunnel-operator: --tls-cert, [^\n]*tls\.key[^\n]*\n$/);
  });

  it('--auth insecure logs a warning and sets a metric', async (fixture) => {
    const { startWith } = fixture;
    const operator = await startWith();
    expect(await operator.metric('reverse_tunnel_insecure')).to.equal(1);
    const warning = operator.log.find(({ msg }) => msg.startsWith('auth is insecure'));
    expect(warning?.level).to.equal('warn');
    expect(warning).to.include({ msg: 'auth is insecure: any client may report', tls: false });
  });

  it('--auth insecure with a certificate logs the warning without claiming plaintext', async (fixture) => {
    const { flagsOf, startWith } = fixture;
    const operator = await startWith(
      '--auth',
      'insecure',
      ...flagsOf('tls-', { cert: 'tls.crt', key: 'tls.key' }),
    );
    const warning = operator.log.find(({ msg }) => msg.startsWith('auth is insecure'));
    expect(warning).to.include({ msg: 'auth is insecure: any client may report', tls: true });
  });
});
