/**
 * `npm run bench:envoy`: measures, for each example, Envoy version and transport, the time from the start and the end of a
 * tunnel to its object. Prints the tables of docs/envoy.md.
 */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { kill } from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { parse, stringify } from 'yaml';
import { reservePorts } from '../control-plane/ports.ts';
import type { ControlPlane } from '../control-plane/start.ts';
import { substituteExample } from '../envoy/bootstrap.ts';
import { startEnvoy, type EnvoyProcess } from '../envoy/process.ts';
import { canEncryptRequests, resolveEnvoys, type ResolvedEnvoy } from '../envoy/resolve.ts';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { createFleet } from '../src/simulate/fleet.ts';
import { startAgent } from '../test/support/agent-process.ts';
import { writeEnvoyCertificates } from '../envoy/example-certificates.ts';
import { startOperatorProcess } from '../test/support/operator-process.ts';
import { startWithCrds } from '../test/support/start-with-crds.ts';

const REPETITIONS = 3;
const POLL_INTERVAL_MS = 10;
const DEADLINE_MS = 30_000;
const NODE = 'node-17';
const NAMESPACE = 'default';
const TRANSPORTS = [
  { name: 'plaintext', responder: 'envoy-responder.yaml', initiator: 'envoy-initiator.yaml' },
  { name: 'mTLS', responder: 'envoy-responder-mtls.yaml', initiator: 'envoy-initiator-mtls.yaml' },
];

const COMMAND = {
  usage: ['npm run bench:envoy'],
  description:
    'Measures the time from the start and the end of a tunnel of an Envoy to its object. Takes minutes.',
  flags: {},
  footer: 'Exit code: 0, 1 on a failure, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if ('values' in parsed) await main();
else process.exitCode = endWithUsage('bench:envoy', parsed);

async function main(): Promise<void> {
  const envoys = await resolveEnvoys();
  await using stack = new AsyncDisposableStack();
  const controlPlane = await startWithCrds();
  stack.defer(() => controlPlane.stop());
  console.log('| Envoy | transport | request passes | object appears | killed | hung | stopped | drained |');
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  for (const envoy of envoys) {
    for (const transport of TRANSPORTS) console.log(await measureAgent(controlPlane, envoy, transport));
  }
  console.log('\n| report interval | object appears | object is deleted |\n| --- | --- | --- |');
  for (const interval of ['5s', '100ms']) console.log(await measureReporter(controlPlane, interval));
}

/** Measures real Envoys with the agent. The responder is the example without the reporter, with statistics and log. */
async function measureAgent(
  controlPlane: ControlPlane,
  envoy: ResolvedEnvoy,
  transport: (typeof TRANSPORTS)[number],
): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'envoy-latency-'));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const reserved = await reservePorts(4);
  stack.defer(reserved.release);
  const backend = createServer((_request, response) => response.end('hello'));
  backend.listen(0, '127.0.0.1');
  await once(backend, 'listening');
  stack.defer(() => {
    backend.closeAllConnections();
    backend.close();
  });
  const [tunnels, requests, unused] = [reserved.first, reserved.first + 1, reserved.first + 2];
  const log = join(folder, 'tunnels.log');
  const options = {
    ports: {
      '127.0.0.1:9901': 0,
      '0.0.0.0:9000': tunnels,
      'responder.example.com:9000': tunnels,
      '0.0.0.0:8085': requests,
      'reports.example.com:18000': unused,
      'backend.example.com:80': (backend.address() as AddressInfo).port,
    },
    files: { ...(await writeEnvoyCertificates(folder)), '/var/log/envoy/tunnels.log': log },
    withoutReporter: true,
    withoutRequestTls: !canEncryptRequests(envoy),
  };
  const standard = parse(await substituteExample('envoy-responder-standard.yaml', options)) as Bootstrap;
  const responder = parse(await substituteExample(transport.responder, options)) as Bootstrap;
  // What the agent needs, in the example for the contrib build.
  Object.assign(responder, { bootstrap_extensions: standard.bootstrap_extensions });
  const process = await startEnvoy(envoy.path, stringify(responder, { aliasDuplicateObjects: false }));
  stack.use(process);
  const operator = await startOperatorProcess({
    kubeconfigPath: controlPlane.kubeconfigPath,
    namespace: NAMESPACE,
    flags: ['--report-interval', '100ms', '--grpc-address', '127.0.0.1:0'],
  });
  stack.defer(() => operator.kill());
  const agent = await startAgent([
    ...['--address', operator.grpcAddress, '--admin', `http://${process.adminAddress}`],
    ...['--lifecycle-log', log, '--settle-time', '0'],
  ]);
  stack.use(agent);
  await waitFor(async () => (await agent.readiness()) === 'ok');
  // The report interval of the operator takes effect with the second report.
  await delay(6000);

  const times: Record<'passes' | 'appears' | 'killed' | 'hung' | 'stopped' | 'drained', number[]> = {
    passes: [],
    appears: [],
    killed: [],
    hung: [],
    stopped: [],
    drained: [],
  };
  const bootstrap = await substituteExample(transport.initiator, options);
  const ends: readonly [
    Exclude<keyof typeof times, 'passes' | 'appears'>,
    (initiator: EnvoyProcess) => unknown,
  ][] = [
    ['killed', (initiator) => initiator.kill()],
    ['hung', (initiator) => initiator.pause()],
    ['stopped', ({ pid }) => kill(pid, 'SIGTERM')],
    [
      'drained',
      async ({ adminAddress }) => {
        await fetch(`http://${adminAddress}/healthcheck/fail`, { method: 'POST' });
        // Envoy sends the GOAWAY with the response.
        await passes(requests);
      },
    ],
  ];
  for (const [kind, end] of ends) {
    for (let repetition = 0; repetition < REPETITIONS; repetition += 1) {
      const startedMs = performance.now();
      await using initiator = await startEnvoy(envoy.path, bootstrap);
      const [appearedMs, passedMs] = await Promise.all([
        waitFor(async () => await hasObject(controlPlane)),
        waitFor(async () => await passes(requests)),
      ]);
      times.appears.push(appearedMs - startedMs);
      times.passes.push(passedMs - startedMs);
      const endedMs = performance.now();
      await end(initiator);
      const goneMs = await waitFor(async () => !(await hasObject(controlPlane)));
      times[kind].push(goneMs - endedMs);
    }
  }
  const cells = [times.passes, times.appears, times.killed, times.hung, times.stopped, times.drained].map(
    formatMedian,
  );
  return `| ${[envoy.version, transport.name, ...cells].join(' | ')} |`;
}

/** Measures the client of the contrib reporter. */
async function measureReporter(controlPlane: ControlPlane, interval: string): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const operator = await startOperatorProcess({
    kubeconfigPath: controlPlane.kubeconfigPath,
    namespace: NAMESPACE,
    flags: ['--report-interval', interval, '--grpc-address', '127.0.0.1:0'],
  });
  stack.defer(() => operator.kill());
  const fleet = createFleet({ address: operator.grpcAddress, reporters: 1, tunnels: 0 });
  await fleet.start();
  stack.defer(() => fleet.stop());
  const [reporter] = fleet.reporters;
  if (reporter === undefined) throw new Error('the fleet has no reporter');
  await waitFor(async () => (await operator.metric('reverse_tunnel_acks_total')) > 1);
  const identity = { tenantID: 'acme', clusterID: 'eu-1', nodeID: NODE };
  const [appears, gone]: [number[], number[]] = [[], []];
  for (let repetition = 0; repetition < 10; repetition += 1) {
    await delay(repetition * 510);
    let startedMs = performance.now();
    reporter.connectTunnel(identity);
    appears.push((await waitFor(async () => await hasObject(controlPlane))) - startedMs);
    startedMs = performance.now();
    reporter.disconnectTunnel(NODE);
    gone.push((await waitFor(async () => !(await hasObject(controlPlane)))) - startedMs);
  }
  return `| ${interval} | ${formatMedian(appears)} | ${formatMedian(gone)} |`;
}

interface Bootstrap {
  readonly bootstrap_extensions: unknown;
}

async function passes(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { 'x-node-id': NODE } });
  await response.arrayBuffer();
  return response.status === 200;
}

async function hasObject({ request }: ControlPlane): Promise<boolean> {
  const { body } = await request(
    'GET',
    `/apis/reverse-tunnel.io/v1alpha1/namespaces/${NAMESPACE}/reversetunnels`,
  );
  return (body as { readonly items: readonly unknown[] }).items.length > 0;
}

/** Returns when `isTrue` resolved with true for the first time. */
async function waitFor(isTrue: () => Promise<boolean>): Promise<number> {
  const untilMs = performance.now() + DEADLINE_MS;
  while (!(await isTrue())) {
    if (performance.now() > untilMs) return Number.POSITIVE_INFINITY;
    await delay(POLL_INTERVAL_MS);
  }
  return performance.now();
}

/** Returns the median and the maximum. */
function formatMedian(ms: readonly number[]): string {
  const sorted = ms.toSorted((a, b) => a - b);
  const format = (value = Number.NaN): string =>
    Number.isFinite(value) ? `${Math.round(value)}` : `> ${DEADLINE_MS}`;
  return `${format(sorted[Math.floor(sorted.length / 2)])} ms (max ${format(sorted.at(-1))})`;
}
