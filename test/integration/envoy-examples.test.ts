import { expect } from 'chai';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reservePorts } from '../../control-plane/ports.ts';
import { substituteExample, validateBootstrap } from '../../envoy/bootstrap.ts';
import { startEnvoy, type EnvoyProcess } from '../../envoy/process.ts';
import { canEncryptRequests, resolveEnvoys, type ResolvedEnvoy } from '../../envoy/resolve.ts';
import { writeEnvoyCertificates } from '../../envoy/example-certificates.ts';
import { openFaultProxy } from '../faults/real/fault-proxy.ts';
import { eventually } from '../support/eventually.ts';

/** Keepalive finds a hung initiator within 8 to 9 s. */
const HUNG_DEADLINE_MS = 30_000;
const REPORTER_TYPE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.reporters.EventReporterConfig';

/** Two shipped bootstraps that belong together. */
interface Pair {
  readonly security: string;
  readonly responder: string;
  readonly initiator: string;
}

const PAIRS: readonly Pair[] = [
  { security: 'plaintext', responder: 'envoy-responder.yaml', initiator: 'envoy-initiator.yaml' },
  { security: 'mTLS', responder: 'envoy-responder-mtls.yaml', initiator: 'envoy-initiator-mtls.yaml' },
];

/** Everything that the examples of one pair of Envoys name: ports, a backend, certificates, and the network in between. */
interface Fixture extends AsyncDisposable {
  readonly ports: Readonly<Record<string, number>>;
  readonly files: Readonly<Record<string, string>>;
  /** Starts both Envoys of a pair, and returns the initiator as soon as it has its tunnel. */
  start(envoy: ResolvedEnvoy, pair: Pair): Promise<EnvoyProcess>;
  /** Sends a request for an initiator through the responder; returns the status and the body. */
  request(node: string): Promise<string>;
  /** Returns what the two Envoys have sent to each other so far, a character per byte. */
  transmitted(): string;
}

async function createFixture(): Promise<Fixture> {
  await using started = new AsyncDisposableStack();
  const { first, release } = await reservePorts(3);
  started.defer(release);
  const backend: Server = createServer((request, response) => response.end(`backend saw ${request.url}`));
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  started.defer(() => {
    backend.closeAllConnections();
    backend.close();
  });
  const folder = await mkdtemp(join(tmpdir(), 'envoy-certificates-'));
  started.defer(async () => await rm(folder, { recursive: true, force: true }));
  const files = await writeEnvoyCertificates(folder);
  const network = await openFaultProxy(`127.0.0.1:${first}`);
  started.defer(async () => await network.close());
  const chunks: Buffer[] = [];
  network.eavesdrop((chunk) => chunks.push(chunk));
  const ports = {
    '127.0.0.1:9901': 0,
    '0.0.0.0:9000': first,
    'responder.example.com:9000': Number(new URL(`tcp://${network.address}`).port),
    '0.0.0.0:8085': first + 1,
    // Nothing listens here: a core build has no reporter.
    'reports.example.com:18000': first + 2,
    'backend.example.com:80': (backend.address() as AddressInfo).port,
  };
  const stack = started.move();
  return {
    ports,
    files,
    async start(envoy, { responder, initiator }) {
      const options = { ports, files, withoutRequestTls: !canEncryptRequests(envoy) };
      const withoutReporter = await substituteExample(responder, { ...options, withoutReporter: true });
      stack.use(await startEnvoy(envoy.path, withoutReporter));
      const remote = stack.use(await startEnvoy(envoy.path, await substituteExample(initiator, options)));
      await waitForTunnel(remote);
      return remote;
    },
    async request(node) {
      const response = await fetch(`http://127.0.0.1:${first + 1}/hello`, { headers: { 'x-node-id': node } });
      return `${response.status} ${await response.text()}`;
    },
    transmitted: () => Buffer.concat(chunks).toString('latin1'),
    [Symbol.asyncDispose]: async () => await stack.disposeAsync(),
  };
}

/**
 * Returns once the initiator has its tunnel. Envoy loses a tunnel, for good or for 10 s, that is used before the initiator
 * has read the response to the handshake.
 */
async function waitForTunnel({ adminAddress }: EnvoyProcess): Promise<void> {
  await eventually('the initiator has its tunnel', async () => {
    const response = await fetch(`http://${adminAddress}/stats?filter=^http.tunnel.downstream_cx_active$`);
    return (await response.text()).trim() === 'http.tunnel.downstream_cx_active: 1';
  });
}

describe('The Envoy examples on a real Envoy', function () {
  let envoys: readonly ResolvedEnvoy[];

  before('provides the Envoys', async function () {
    this.timeout(600_000);
    envoys = await resolveEnvoys();
  });

  for (const pair of PAIRS) {
    it(`pass a request through a tunnel over ${pair.security} until the initiator is killed`, async () => {
      for (const envoy of envoys) {
        await using fixture = await createFixture();
        const initiator = await fixture.start(envoy, pair);
        expect(await fixture.request('node-17'), envoy.version).to.equal('200 backend saw /hello');
        expect(await fixture.request('node-18'), envoy.version).to.match(/^503 /);
        await initiator.kill();
        await eventually('a request is rejected', async () =>
          (await fixture.request('node-17')).startsWith('503 '),
        );
      }
    });

    it(`close the tunnel of an initiator that hangs, over ${pair.security}`, async () => {
      await using fixture = await createFixture();
      const initiator = await fixture.start(newestOf(envoys), pair);
      expect(await fixture.request('node-17')).to.equal('200 backend saw /hello');
      initiator.pause();
      // The request that is under way when the keepalive expires is answered with 503 as well.
      await eventually(
        'a request is rejected',
        async () => (await fixture.request('node-17')).startsWith('503 '),
        HUNG_DEADLINE_MS,
      );
    });

    it(`keep a tunnel over ${pair.security} that is pinged before its first request`, async () => {
      for (const envoy of envoys) {
        await using fixture = await createFixture();
        await fixture.start(envoy, pair);
        await eventually(
          'two pings are sent and answered',
          () => fixture.transmitted().split('RPING').length > 2 * 2,
        );
        expect(await fixture.request('node-17'), envoy.version).to.equal('200 backend saw /hello');
      }
    });

    it(`contain nothing that a core build rejects but the reporter, over ${pair.security}`, async () => {
      for (const { path: envoy, version } of envoys) {
        await using fixture = await createFixture();
        const { ports, files } = fixture;
        const complete = await substituteExample(pair.responder, { ports, files });
        const { code: completeCode, stderr: completeError } = await validateBootstrap(envoy, complete);
        expect(completeCode, version).to.equal(1);
        expect(completeError).to.include(`could not find @type 'type.googleapis.com/${REPORTER_TYPE}'`);
        for (const name of [pair.responder, pair.initiator]) {
          const bootstrap = await substituteExample(name, { ports, files, withoutReporter: true });
          const { code, stderr } = await validateBootstrap(envoy, bootstrap);
          expect(code, `${name} on ${version}: ${stderr}`).to.equal(0);
        }
      }
    });
  }

  it('encrypt requests and responses between the Envoys with mTLS, and only with it', async () => {
    const readable: Record<string, boolean> = {};
    for (const pair of PAIRS) {
      await using fixture = await createFixture();
      await fixture.start(newestOf(envoys), pair);
      expect(await fixture.request('node-17')).to.equal('200 backend saw /hello');
      readable[pair.security] = fixture.transmitted().includes('backend saw /hello');
    }
    expect(readable).to.deep.equal({ plaintext: true, mTLS: false });
  });
});

function newestOf([newest]: readonly ResolvedEnvoy[]): ResolvedEnvoy {
  if (newest === undefined) throw new Error('no Envoy');
  return newest;
}
