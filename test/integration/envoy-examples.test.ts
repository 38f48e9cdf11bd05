import { expect } from 'chai';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reservePorts, type ReservedPorts } from '../../control-plane/ports.ts';
import { substituteExample, validateBootstrap } from '../../envoy/bootstrap.ts';
import { startEnvoy } from '../../envoy/process.ts';
import { resolveEnvoys, type ResolvedEnvoy } from '../../envoy/resolve.ts';
import { writeEnvoyCertificates } from '../../envoy/example-certificates.ts';
import { eventually } from '../support/eventually.ts';

/** Keepalive finds a hung initiator within 8 to 9 s. */
const HUNG_DEADLINE_MS = 30_000;
const REPORTER_TYPE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.reporters.EventReporterConfig';

/** Everything that the examples of one pair of Envoys name: ports, a backend, certificates. */
interface Fixture extends AsyncDisposable {
  readonly ports: Readonly<Record<string, number>>;
  readonly files: Readonly<Record<string, string>>;
  /** Sends a request for an initiator through the responder; returns the status and the body. */
  request(node: string): Promise<string>;
}

async function createFixture(): Promise<Fixture> {
  const reserved: ReservedPorts = await reservePorts(5);
  const { first } = reserved;
  const backend: Server = createServer((request, response) => response.end(`backend saw ${request.url}`));
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  const folder = await mkdtemp(join(tmpdir(), 'envoy-certificates-'));
  const files = await writeEnvoyCertificates(folder);
  return {
    ports: {
      '127.0.0.1:9901': 0,
      '0.0.0.0:9000': first,
      'responder.example.com:9000': first,
      '0.0.0.0:8085': first + 1,
      // Nothing listens here: a core build has no reporter.
      'reports.example.com:18000': first + 2,
      'backend.example.com:80': (backend.address() as AddressInfo).port,
    },
    files,
    async request(node) {
      const response = await fetch(`http://127.0.0.1:${first + 1}/hello`, { headers: { 'x-node-id': node } });
      return `${response.status} ${await response.text()}`;
    },
    async [Symbol.asyncDispose]() {
      backend.closeAllConnections();
      backend.close();
      await rm(folder, { recursive: true, force: true });
      await reserved.release();
    },
  };
}

describe('The Envoy examples on a real Envoy', function () {
  let envoys: readonly ResolvedEnvoy[];

  before('provides the Envoys', async function () {
    this.timeout(600_000);
    envoys = await resolveEnvoys();
  });

  const pairs = [
    { security: 'plaintext', responder: 'envoy-responder.yaml', initiator: 'envoy-initiator.yaml' },
    { security: 'mTLS', responder: 'envoy-responder-mtls.yaml', initiator: 'envoy-initiator-mtls.yaml' },
  ];

  for (const { security, responder, initiator } of pairs) {
    it(`pass a request through a tunnel over ${security} until the initiator is killed`, async () => {
      for (const { path: envoy } of envoys) {
        await using fixture = await createFixture();
        const { ports, files } = fixture;
        const withoutReporter = await substituteExample(responder, { ports, files, withoutReporter: true });
        await using _responder = await startEnvoy(envoy, withoutReporter);
        await using remote = await startEnvoy(envoy, await substituteExample(initiator, { ports, files }));
        await eventually('a request reaches the backend', async () =>
          (await fixture.request('node-17')).startsWith('200 backend saw /hello'),
        );
        expect(await fixture.request('node-18')).to.match(/^503 /);
        await remote.kill();
        await eventually('a request is rejected', async () =>
          (await fixture.request('node-17')).startsWith('503 '),
        );
      }
    });

    it(`close the tunnel of an initiator that hangs, over ${security}`, async () => {
      const [newest] = envoys;
      if (newest === undefined) throw new Error('no Envoy');
      await using fixture = await createFixture();
      const { ports, files } = fixture;
      const withoutReporter = await substituteExample(responder, { ports, files, withoutReporter: true });
      await using _responder = await startEnvoy(newest.path, withoutReporter);
      await using remote = await startEnvoy(
        newest.path,
        await substituteExample(initiator, { ports, files }),
      );
      await eventually('a request reaches the backend', async () =>
        (await fixture.request('node-17')).startsWith('200 '),
      );
      remote.pause();
      // The request that is under way when the keepalive expires is answered with 503 as well.
      await eventually(
        'a request is rejected',
        async () => (await fixture.request('node-17')).startsWith('503 '),
        HUNG_DEADLINE_MS,
      );
    });

    it(`contain nothing that a core build rejects but the reporter, over ${security}`, async () => {
      for (const { path: envoy, version } of envoys) {
        await using fixture = await createFixture();
        const { ports, files } = fixture;
        const complete = await validateBootstrap(envoy, await substituteExample(responder, { ports, files }));
        expect(complete.code, version).to.equal(1);
        expect(complete.stderr).to.include(`could not find @type 'type.googleapis.com/${REPORTER_TYPE}'`);
        for (const name of [responder, initiator]) {
          const bootstrap = await substituteExample(name, { ports, files, withoutReporter: true });
          const { code, stderr } = await validateBootstrap(envoy, bootstrap);
          expect(code, `${name} on ${version}: ${stderr}`).to.equal(0);
        }
      }
    });
  }
});
