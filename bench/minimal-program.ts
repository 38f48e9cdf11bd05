/**
 * The least that a program on Node can do for this service: it decodes reports, ACKs them, and sends one request for each
 * tunnel that was added or removed. It lists the objects once and watches nothing, so it is not an operator: it corrects
 * nothing, retries nothing, updates no object, and checks neither reporters nor tunnels. What it needs, every operator on
 * Node needs.
 *
 * Uses the decoder, the object content and the HTTP client of the operator, which are faster than those of the libraries.
 */
import { hash } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { systemClock } from '../src/clock.ts';
import { createNames } from '../src/core/names.ts';
import { reporterKey, type ReporterId } from '../src/core/tunnel.ts';
import { manifestFor } from '../src/core/tunnel-object.ts';
import { DecodeScheduler, runCooperatively } from '../src/grpc/decode-scheduler.ts';
import { decodeNode } from '../src/grpc/decode-node.ts';
import { decodeReport, type DecodedReport } from '../src/grpc/decode.ts';
import type { ReportResponse } from '../src/grpc/messages.ts';
import { REPORTING_SERVICE } from '../src/grpc/reporting-service.ts';
import { resolveConnection } from '../src/k8s/connection.ts';
import { tunnelBody } from '../src/k8s/resources.ts';
import { createTransport } from '../src/k8s/transport.ts';

/** The default of the operator's `--write-concurrency`. */
const IN_FLIGHT = 64;
const PAGE_LIMIT = 2000;
const REQUEST_TIMEOUT_MS = 60_000;
const TUNNELS_PER_TURN = 64;
const MAX_REPORT_BYTES = 64 * 1024 * 1024;

type ReportStream = ServerDuplexStream<Buffer, Partial<ReportResponse>>;

/** A page of a list; of each object, what is used. */
interface Page {
  readonly metadata: { readonly continue?: string };
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly spec: { readonly tunnelName: string; readonly reporter: ReporterId };
  }[];
}

interface Write {
  readonly method: 'POST' | 'DELETE';
  readonly path: string;
  readonly body?: string;
}

/** Resolves with the body of the response. Rejects unless the status is 2xx. */
type Send = (request: Write | { readonly method: 'GET'; readonly path: string }) => Promise<string>;

/** Sends requests for the objects of one namespace: writes in the order in which they were queued, 64 at a time. */
class ObjectClient {
  readonly collection: string;
  readonly #send: Send;
  readonly #writes: Write[] = [];
  #next = 0;
  #inFlight = 0;

  private constructor(namespace: string, send: Send) {
    this.collection = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`;
    this.#send = send;
  }

  static async connect(kubeconfig: string, namespace: string): Promise<ObjectClient> {
    const { server, credentials: source } = await resolveConnection({
      kubeconfig,
      env: {},
      clock: systemClock,
    });
    const credentials = await source.current();
    const { authorization } = credentials;
    const headers = [
      ...['accept', 'application/json', 'content-type', 'application/json'],
      ...['user-agent', 'reverse-tunnel-operator/minimal'],
      ...(authorization === undefined ? [] : ['authorization', authorization]),
    ];
    const transport = createTransport({
      server,
      proxyUrl: undefined,
      connections: IN_FLIGHT,
      clock: systemClock,
    });
    return new ObjectClient(namespace, async (request) => {
      const sent = transport.send({ ...request, headers, timeoutMs: REQUEST_TIMEOUT_MS }, credentials);
      const { status, text } = await sent;
      if (status > 299) throw new Error(`${request.method} ${request.path}: ${text}`);
      return text;
    });
  }

  async *list(): AsyncGenerator<Page['items'][number]> {
    let query: string | undefined = '';
    while (query !== undefined) {
      const path = `${this.collection}?limit=${PAGE_LIMIT}${query}`;
      const { metadata, items } = JSON.parse(await this.#send({ method: 'GET', path })) as Page;
      yield* items;
      const token = metadata.continue ?? '';
      query = token === '' ? undefined : `&continue=${encodeURIComponent(token)}`;
    }
  }

  queue(write: Write): void {
    this.#writes.push(write);
  }

  sendQueued(): void {
    for (; this.#inFlight < IN_FLIGHT && this.#next < this.#writes.length; this.#next += 1) {
      const write = this.#writes[this.#next];
      if (write === undefined) break;
      this.#inFlight += 1;
      void this.#send(write).finally(() => {
        this.#inFlight -= 1;
        this.sendQueued();
      });
    }
    if (this.#next < this.#writes.length) return;
    this.#writes.length = 0;
    this.#next = 0;
  }
}

const names = createNames((text) => hash('sha256', text, 'buffer'));
const scheduler = new DecodeScheduler();
/** The names of the objects, by the key of the reporter and the name of the tunnel. */
const objectNames = new Map<string, Map<string, string>>();

function objectNamesOf(reporter: ReporterId): Map<string, string> {
  const key = reporterKey(reporter);
  const existing = objectNames.get(key);
  if (existing !== undefined) return existing;
  const created = new Map<string, string>();
  objectNames.set(key, created);
  return created;
}

/** Queues the writes for a report. Yields after every 64 tunnels, so that other streams are served. */
function* applyReport(
  report: DecodedReport,
  reporter: ReporterId,
  client: ObjectClient,
): Generator<undefined, void> {
  const known = objectNamesOf(reporter);
  const removed = report.fullPush ? new Set(known.keys()) : new Set(report.removedNames);
  let turn = 0;
  for (const tunnel of report.added) {
    turn += 1;
    if (turn % TUNNELS_PER_TURN === 0) yield;
    removed.delete(tunnel.name);
    if (known.has(tunnel.name)) continue;
    const manifest = manifestFor(names, reporter, tunnel);
    known.set(tunnel.name, manifest.name);
    client.queue({ method: 'POST', path: client.collection, body: JSON.stringify(tunnelBody(manifest)) });
  }
  for (const tunnelName of removed) {
    const name = known.get(tunnelName);
    known.delete(tunnelName);
    if (name !== undefined) client.queue({ method: 'DELETE', path: `${client.collection}/${name}` });
  }
}

/** Serves one stream; works in steps like the operator, so that a large report does not delay those of other streams. */
function serveStream(stream: ReportStream, client: ObjectClient, reportIntervalSeconds: number): void {
  let reporter: ReporterId | undefined;
  function* handle(bytes: Buffer): Generator<undefined, void> {
    const report = yield* decodeReport(bytes);
    if (reporter === undefined) {
      const { id = '', cluster = '' } = report.node === undefined ? {} : decodeNode(report.node);
      reporter = { id, cluster };
    }
    stream.write({
      node_id: reporter.id,
      report_interval: { seconds: reportIntervalSeconds, nanos: 0 },
      request_nonce: String(report.nonce),
    });
    yield* applyReport(report, reporter, client);
    client.sendQueued();
  }
  stream.on('data', (bytes: Buffer) => {
    const handling = handle(bytes);
    if (handling.next().done === true) return;
    stream.pause();
    const yieldTurn = (): Promise<void> => scheduler.wait(stream);
    void runCooperatively(handling, yieldTurn, () => false).then(() => stream.resume());
  });
  stream.on('end', () => stream.end());
  // Connections may end at any time.
  stream.on('error', () => undefined);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      kubeconfig: { type: 'string', default: '' },
      namespace: { type: 'string', default: '' },
      'grpc-address': { type: 'string', default: '' },
      'http-address': { type: 'string', default: '' },
      'report-interval-s': { type: 'string', default: '5' },
    },
  });
  const client = await ObjectClient.connect(values.kubeconfig, values.namespace);
  const server = new Server({ 'grpc.max_receive_message_length': MAX_REPORT_BYTES });
  server.addService(REPORTING_SERVICE, {
    StreamReverseTunnels: (stream: ReportStream) =>
      serveStream(stream, client, Number(values['report-interval-s'])),
  });
  let isReady = false;
  const [host = '', port = ''] = values['http-address'].split(':');
  createServer((_, response) => {
    response.statusCode = isReady ? 200 : 503;
    response.end();
  }).listen(Number(port), host);
  for await (const { metadata, spec } of client.list())
    objectNamesOf(spec.reporter).set(spec.tunnelName, metadata.name);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(values['grpc-address'], ServerCredentials.createInsecure(), (error) =>
      error === null ? resolve() : reject(error),
    );
  });
  isReady = true;
  process.once('SIGTERM', () => process.exit(0));
}

void main();
