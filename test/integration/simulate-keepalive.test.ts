import { readFileSync } from 'node:fs';
import { createServer as createHttp2Server } from 'node:http2';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { parse } from 'yaml';
import type { StreamStatus } from '../../src/grpc/report-message.ts';
import { dialReportingService, ENVOY_KEEPALIVE, type Keepalive } from '../../src/grpc/reporting-client.ts';
import { eventually } from '../support/eventually.ts';

/** An empty HTTP/2 SETTINGS frame, the first frame of a server. */
const SETTINGS_FRAME = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

describe('HTTP/2 keepalive of a simulated reporter', () => {
  const closing: (() => void)[] = [];
  afterEach(() => {
    for (const close of closing.splice(0)) close();
  });

  /** Opens a stream to a server and returns the status with which it ended, if it has ended. */
  async function openStream(server: Server, keepalive: Keepalive): Promise<() => StreamStatus | undefined> {
    const sockets = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address() as AddressInfo;
    const connection = dialReportingService({ address: `127.0.0.1:${port}`, keepalive });
    closing.push(() => {
      connection.close();
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    let end: StreamStatus | undefined;
    connection.openStream({
      onResponse: () => undefined,
      onEnd: (received) => {
        end = received;
      },
    });
    return () => end;
  }

  it('sends a PING at each interval', async () => {
    let pings = 0;
    const server = createHttp2Server();
    server.on('sessionError', () => undefined);
    server.on('session', (session) => session.on('ping', () => (pings += 1)));
    const end = await openStream(server, { intervalMs: 50, timeoutMs: 10_000 });
    await eventually('the third PING', () => pings >= 3);
    expect(end()).to.equal(undefined);
  });

  it('ends the stream if a PING is not acknowledged', async () => {
    const silent = createServer((socket) => {
      socket.resume();
      socket.write(SETTINGS_FRAME);
    });
    const end = await openStream(silent, { intervalMs: 50, timeoutMs: 50 });
    await eventually('the end of the stream', () => end() !== undefined);
    expect(end()?.code).to.equal(status.UNAVAILABLE);
  });

  for (const file of ['envoy-responder.yaml', 'envoy-responder-mtls.yaml']) {
    it(`uses the values of examples/${file} by default`, () => {
      const { intervalMs, timeoutMs } = ENVOY_KEEPALIVE;
      const bootstrap: Bootstrap = parse(
        readFileSync(new URL(`../../examples/${file}`, import.meta.url), 'utf8'),
      );
      const cluster = bootstrap.static_resources.clusters.find(
        ({ name }) => name === 'reverse-tunnel-operator',
      );
      const [options] = Object.values(cluster?.typed_extension_protocol_options ?? {});
      expect(options?.explicit_http_config.http2_protocol_options.connection_keepalive).to.deep.equal({
        interval: `${intervalMs / 1000}s`,
        timeout: `${timeoutMs / 1000}s`,
      });
    });
  }
});

/** The part of an Envoy bootstrap that contains the keepalive. */
interface Bootstrap {
  readonly static_resources: {
    readonly clusters: readonly {
      readonly name: string;
      readonly typed_extension_protocol_options?: Readonly<
        Record<
          string,
          {
            readonly explicit_http_config: {
              readonly http2_protocol_options: { readonly connection_keepalive: object };
            };
          }
        >
      >;
    }[];
  };
}
