import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ended, spawnGuarded } from '../../control-plane/lifeline.ts';
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import type { FleetOptions } from '../../src/simulate/fleet-options.ts';
import { rowWrites, since, writesBy } from '../support/audit-log.ts';
import { createAuthority, type Authority } from '../support/certificates.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RULES,
  operatorOutput,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { tell } from '../support/tell.ts';
import { serverMaterial } from '../support/tls-world.ts';
import { untilEqual } from '../support/truth.ts';

const DEADLINE_MS = 60_000;
const ROOT = new URL('../..', import.meta.url).pathname;

describe('reporting by mutual TLS, end to end', () => {
  const controlPlane = useControlPlane();
  const running: { fleets: Fleet[]; operators: OperatorProcess[] } = { fleets: [], operators: [] };
  let folder: string;
  let namespace: string;
  let kubeconfigPath: string;
  let authority: Authority;

  /** Replaces the file in one go, as a mounted Secret changes. */
  const put = async (name: string, text: string): Promise<string> => {
    const path = join(folder, name);
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
    return path;
  };
  const putServer = async (): Promise<void> => {
    const { cert, key } = serverMaterial(authority);
    await put('tls.crt', cert);
    await put('tls.key', key);
  };
  const putPeer = async (by: Authority): Promise<void> => {
    const { cert, key } = by.issue({ uris: ['spiffe://edge/ns/edge/sa/envoy'], usage: 'client' });
    await put('peer.crt', cert);
    await put('peer.key', key);
  };
  const flagsOf = (prefix: string, files: Readonly<Record<string, string>>): string[] =>
    Object.entries(files).flatMap(([flag, name]) => [`--${prefix}${flag}`, join(folder, name)]);
  const tlsFlags = (): string[] => [
    ...['--auth', 'mtls'],
    ...flagsOf('tls-', { cert: 'tls.crt', key: 'tls.key', 'client-ca': 'client-ca.crt' }),
  ];

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'reverse-tunnel-tls-'));
    namespace = await createNamespace(controlPlane(), 'mtls');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RULES };
    ({ kubeconfigPath } = await controlPlane().kubeconfigFor(account));
    authority = createAuthority();
    await putServer();
    await putPeer(authority);
    await put('ca.crt', authority.ca);
    await put('client-ca.crt', authority.ca);
  });
  afterEach(async () => {
    await Promise.all(running.fleets.splice(0).map((fleet) => fleet.stop()));
    await Promise.all(running.operators.splice(0).map((operator) => operator.kill()));
    await rm(folder, { recursive: true });
  });

  async function startOperator(...flags: string[]): Promise<OperatorProcess> {
    const operator = await startOperatorProcess({
      kubeconfigPath,
      namespace,
      flags: [...tlsFlags(), ...flags],
    });
    running.operators.push(operator);
    await operator.ready();
    return operator;
  }

  async function startFleet(options: Partial<FleetOptions> & { address: string }): Promise<Fleet> {
    const identity = reporterIdentity({
      caFile: join(folder, 'ca.crt'),
      certFile: join(folder, 'peer.crt'),
      keyFile: join(folder, 'peer.key'),
      serverName: undefined,
      tokenFile: undefined,
    });
    if (identity === undefined) throw new Error('files were named');
    const fleet = createFleet(
      { connectRetryIntervalMs: 200, ...options },
      { dial: (address) => dialReportingService({ address, identity }) },
    );
    running.fleets.push(fleet);
    await fleet.start();
    return fleet;
  }

  it('100 reporters: rows equal the truth; rotated files drop none of them, broken ones change nothing, another CA lets nobody back in', async function () {
    this.timeout(4 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '1s');
    expect(await operator.metric('reverse_tunnel_insecure')).to.equal(0);
    const fleet = await startFleet({
      address: operator.grpcAddress,
      reporters: 100,
      tunnels: 3,
      startOverMs: 2000,
    });
    await fleet.settled();
    await untilEqual(fleet, controlPlane().request, namespace, DEADLINE_MS);

    const changed = (): number =>
      operator.log.filter(({ msg }) => msg.startsWith('TLS files changed')).length;
    await put('tls.crt', 'broken');
    await poll(DEADLINE_MS, () => operator.log.find(({ msg }) => msg.includes('are not taken')));
    const count = changed();
    await putServer();
    await put('client-ca.crt', createAuthority().ca);
    await poll(DEADLINE_MS, () => (changed() > count ? true : undefined));
    // Certificate, key and CA may have been read in two looks; the last one counts.
    await poll(DEADLINE_MS, async () => {
      const [reporter] = fleet.reporters;
      reporter?.dropConnection();
      const refused = 'reverse_tunnel_connections_refused_total{reason="certificate_untrusted"}';
      return (await operator.metric(refused)) > 0 ? true : undefined;
    });
    const { acks } = fleet.statistics();
    await poll(DEADLINE_MS, () => (fleet.statistics().acks > acks + 200 ? true : undefined));
    const { connected } = fleet.statistics();
    tell(`${connected} of 100 streams still open after two rotations; the one that was dropped is kept out`);
    expect(connected).to.equal(99);
  });

  it('streams that come of age come back without a row written, and nobody is said to be lost', async function () {
    this.timeout(3 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '1s', '--max-stream-age', '10s');
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 5, tunnels: 20 });
    await fleet.settled();
    await untilEqual(fleet, controlPlane().request, namespace, DEADLINE_MS);
    const audit = controlPlane().auditLogPath ?? '';
    const before = await rowWrites(audit, namespace);
    const count = (await writesBy(audit, namespace)).length;
    await poll(DEADLINE_MS, async () =>
      (await operator.metric('reverse_tunnel_stream_closed_total{reason="aged"}')) >= 10 ? true : undefined,
    );
    await fleet.settled();
    await untilEqual(fleet, controlPlane().request, namespace, DEADLINE_MS);
    const counted = since(before, await rowWrites(audit, namespace));
    const reporterWrites = (await writesBy(audit, namespace))
      .slice(count)
      .filter(({ resource }) => resource.startsWith('reversetunnelreporters'));
    const { connects } = fleet.statistics();
    tell(`${connects - 5} reconnects by age: ${reporterWrites.length} writes to reporters`);
    expect(counted).to.deep.equal({ create: 0, patch: 0, delete: 0, status: 0, failed: 0 });
    expect(operator.log.filter(({ msg }) => msg.startsWith('reporter disconnected'))).to.deep.equal([]);
  });

  it('simulate reports with certificate and key from files', async function () {
    this.timeout(2 * DEADLINE_MS);
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
          '5s',
        ],
        ...flagsOf('tls-', { ca: 'ca.crt', cert: 'peer.crt', key: 'peer.key' }),
      ],
      { cwd: ROOT, env: { PATH: process.env['PATH'] }, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    simulate.stdout?.resume();
    simulate.stderr?.resume();
    await ended(simulate);
    expect(simulate.exitCode).to.equal(0);
  });

  it('a file that is missing or no key: exit code 1 and one line that names the flags and what is wrong', async function () {
    this.timeout(2 * DEADLINE_MS);
    const base = [
      '--kubeconfig',
      kubeconfigPath,
      '--grpc-address',
      '127.0.0.1:0',
      '--http-address',
      '127.0.0.1:0',
    ];
    await put('tls.key', 'no key');
    const broken = await operatorOutput([...base, ...tlsFlags()]);
    expect(broken.code).to.equal(1);
    expect(broken.stderr).to.match(
      /^reverse-tunnel-operator: --tls-cert, --tls-key, --tls-client-ca: certificate and key: [^\n]+\n$/,
    );
    await rm(join(folder, 'tls.key'));
    const missing = await operatorOutput([...base, ...tlsFlags()]);
    expect(missing.code).to.equal(1);
    expect(missing.stderr).to.match(/^reverse-tunnel-operator: --tls-cert, [^\n]*tls\.key[^\n]*\n$/);
  });

  it('--auth insecure is said loudly: a warning and a metric', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperatorProcess({ kubeconfigPath, namespace });
    running.operators.push(operator);
    expect(await operator.metric('reverse_tunnel_insecure')).to.equal(1);
    const warning = operator.log.find(({ msg }) => msg.startsWith('auth is insecure'));
    expect(warning?.level).to.equal('warn');
    expect(warning?.msg).to.equal('auth is insecure: whoever reaches the port may report, in plaintext');
  });

  it('--auth insecure with a certificate is said as loudly, and not to be plaintext', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperatorProcess({
      kubeconfigPath,
      namespace,
      flags: ['--auth', 'insecure', ...flagsOf('tls-', { cert: 'tls.crt', key: 'tls.key' })],
    });
    running.operators.push(operator);
    const warning = operator.log.find(({ msg }) => msg.startsWith('auth is insecure'));
    expect(warning?.msg).to.equal('auth is insecure: whoever reaches the port may report');
  });
});
