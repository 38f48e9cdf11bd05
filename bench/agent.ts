/**
 * `npm run build && node bench/agent.ts [latency] [load]`: measures the agent next to a real standard Envoy, with a real
 * operator and API server. docs/envoy.md describes the figures.
 *
 * - latency: 50 starts and kills of an initiator, seen on a watch, with the lifecycle log and with polling only.
 * - load: memory and CPU of the agent with 10, 1,000 and 10,000 idle tunnels.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { reservePorts, type ReservedPorts } from '../control-plane/ports.ts';
import { substituteExample } from '../envoy/bootstrap.ts';
import { startEnvoy, type EnvoyProcess } from '../envoy/process.ts';
import { resolveEnvoys } from '../envoy/resolve.ts';
import { startAgent, type AgentProcess } from '../test/support/agent-process.ts';
import { initiatorOf } from '../test/support/many-tunnels.ts';
import { openBenchCluster, type BenchCluster } from './cluster.ts';
import { commit, load, machine, machineMs } from './machine.ts';
import { openObjectWatch } from './object-watch.ts';
import { operatorCommand, startOperator, type Operator } from './operator.ts';
import { cpuMs, memoryMiB } from './process-usage.ts';

const ROUNDS = 50;
const TUNNELS = [10, 1000, 10_000];
/** As short as the flush interval of the lifecycle log. */
const SHORT_REPORT_INTERVAL = '100ms';
/** Listeners of one initiator. An Envoy with 10,000 takes minutes to start. */
const TUNNELS_PER_INITIATOR = 1000;
const DEADLINE_MS = 300_000;
/** After the last object was written. */
const SETTLE_MS = 10_000;
const WINDOW_MS = 30_000;

/** A responder and what its bootstrap names. */
interface Site {
  readonly envoy: string;
  readonly folder: string;
  readonly reserved: ReservedPorts;
  readonly lifecycleLog: string;
  readonly responder: EnvoyProcess;
}

const [newest] = await resolveEnvoys();
if (newest === undefined) throw new Error('no Envoy');
const parts = process.argv.slice(2);
const { cores, node, processor } = machine();
console.log(
  `Envoy ${newest.version}, commit ${commit()}, ${processor}, ${cores} cores, ${node}, load ${load()}`,
);
await using cluster = await openBenchCluster({ audit: false });
if (parts.length === 0 || parts.includes('latency')) {
  for (const withLog of [true, false]) await measureLatency(newest.path, withLog);
}
if (parts.length === 0 || parts.includes('load')) {
  for (const tunnels of TUNNELS) await measureLoad(newest.path, tunnels);
}
console.log(`load ${load()}`);

/** Prints the times between an initiator and the watch. */
async function measureLatency(envoy: string, withLog: boolean): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const namespace = withLog ? 'with-log' : 'polling';
  const flags = ['--report-interval', SHORT_REPORT_INTERVAL];
  const operator = stack.use(await openOperator(cluster, namespace, flags));
  const site = await openSite(stack, envoy);
  await openAgent(stack, operator, site, withLog);
  await using watch = await openObjectWatch(cluster, namespace);
  const [starts, ups, kills]: number[][] = [[], [], []];
  // One round more, because the second report of a stream follows after 5 s, whatever the operator requests.
  for (let round = 0; round <= ROUNDS; round += 1) {
    const added = watch.waitForNth('ADDED', 1, DEADLINE_MS);
    const startedMs = machineMs();
    await using initiator = await openInitiator(site, ['node-17']);
    const addedMs = await added;
    const addedWallMs = Date.now() - (machineMs() - addedMs);
    starts?.push(addedMs - startedMs);
    ups?.push(addedWallMs - (await lastSetupMs(site)));
    // So that kills are spread over the poll interval.
    await delay(Math.random() * 1000);
    const deleted = watch.waitForNth('DELETED', 1, DEADLINE_MS);
    const killedMs = machineMs();
    await initiator.kill();
    kills?.push((await deleted) - killedMs);
  }
  for (const times of [starts, ups, kills]) times?.shift();
  const how = withLog ? 'lifecycle log' : 'polling only';
  console.log(`${how}: initiator started to ADDED ${summary(starts)}`);
  console.log(`${how}: tunnel up to ADDED           ${summary(ups)}`);
  console.log(`${how}: initiator killed to DELETED  ${summary(kills)}`);
}

/** Prints the memory and CPU of an agent with idle tunnels. */
async function measureLoad(envoy: string, tunnels: number): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const namespace = `load-${tunnels}`;
  const operator = stack.use(await openOperator(cluster, namespace));
  const site = await openSite(stack, envoy);
  const agent = await openAgent(stack, operator, site, true);
  for (let first = 0; first < tunnels; first += TUNNELS_PER_INITIATOR) {
    const length = Math.min(TUNNELS_PER_INITIATOR, tunnels - first);
    const nodes = Array.from({ length }, (_, i) => `node-${first + i}`);
    stack.use(await openInitiator(site, nodes));
  }
  const untilMs = machineMs() + DEADLINE_MS;
  while ((await cluster.countObjects(namespace)) < tunnels) {
    if (machineMs() > untilMs) throw new Error(`not ${tunnels} objects within ${DEADLINE_MS / 1000} s`);
    await delay(500);
  }
  await delay(SETTLE_MS);
  const startedMs = machineMs();
  const before = { agent: cpuMs(agent.pid), responder: cpuMs(site.responder.pid) };
  await delay(WINDOW_MS);
  const spentMs = machineMs() - startedMs;
  const share = (usedMs: number): string => `${((usedMs / spentMs) * 100).toFixed(2)} %`;
  const { resident, peak } = memoryMiB(agent.pid);
  console.log(
    `${tunnels} tunnels: agent RSS ${resident.toFixed(0)} MiB (peak ${peak.toFixed(0)}), CPU ` +
      `${share(cpuMs(agent.pid) - before.agent)}; CPU of Envoy ${share(cpuMs(site.responder.pid) - before.responder)}`,
  );
}

async function openOperator(
  target: BenchCluster,
  namespace: string,
  flags: readonly string[] = [],
): Promise<Operator> {
  const access = await target.access(namespace);
  const operator = await startOperator({ access, flags });
  await operator.ready();
  return operator;
}

async function openSite(stack: AsyncDisposableStack, envoy: string): Promise<Site> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-agent-'));
  stack.defer(async () => await rm(folder, { recursive: true, force: true }));
  const reserved = await reservePorts(4);
  stack.defer(async () => await reserved.release());
  const lifecycleLog = join(folder, 'tunnels.log');
  const bootstrap = await substituteExample('envoy-responder-standard.yaml', {
    ports: portsOf(reserved),
    files: { '/var/log/envoy/tunnels.log': lifecycleLog },
  });
  const responder = stack.use(await startEnvoy(envoy, bootstrap));
  return { envoy, folder, reserved, lifecycleLog, responder };
}

async function openInitiator({ envoy, reserved }: Site, nodes: readonly string[]): Promise<EnvoyProcess> {
  const ports = { ...portsOf(reserved), '127.0.0.1:9901': 0 };
  return await startEnvoy(
    envoy,
    initiatorOf(await substituteExample('envoy-initiator.yaml', { ports }), nodes),
  );
}

async function openAgent(
  stack: AsyncDisposableStack,
  operator: Operator,
  { lifecycleLog, responder }: Site,
  withLog: boolean,
): Promise<AgentProcess> {
  const source = withLog ? ['--lifecycle-log', lifecycleLog] : ['--default-tenant', 'acme'];
  const addresses = ['--address', operator.grpcAddress, '--admin', `http://${responder.adminAddress}`];
  // The compiled program, as in the image: the first word is the path of Node.
  const [, ...program] = operatorCommand();
  const agent = await startAgent([...addresses, '--settle-time', '0', ...source], program);
  return stack.use(agent);
}

function portsOf({ first }: ReservedPorts): Readonly<Record<string, number>> {
  return {
    '0.0.0.0:9000': first,
    'responder.example.com:9000': first,
    '0.0.0.0:8085': first + 1,
    '127.0.0.1:9901': first + 2,
    // Nothing listens here, because no request is sent through a tunnel.
    'backend.example.com:80': first + 3,
  };
}

/** Returns when the last tunnel came up, in ms since 1970. */
async function lastSetupMs({ lifecycleLog }: Site): Promise<number> {
  const times = [...(await readFile(lifecycleLog, 'utf8')).matchAll(/"tunnel_setup".*"time":"([\d.]+)"/g)];
  return Number(times.at(-1)?.[1]) * 1000;
}

function summary(times: readonly number[] = []): string {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number): string =>
    `${(sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN).toFixed(0)} ms`;
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)} (${sorted.length})`;
}
