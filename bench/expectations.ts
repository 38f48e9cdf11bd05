/**
 * Measures the evaluation of expectations without an API server: memory, the first evaluation, CPU per change of a
 * tunnel, and writes. Run: node --expose-gc bench/expectations.ts [TUNNELS] [EXPECTATIONS]
 */
import { hash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { systemClock } from '../src/clock.ts';
import { ExpectationCache } from '../src/controller/expectation-cache.ts';
import { ExpectationReconciler } from '../src/controller/expectation-reconciler.ts';
import { ExpectationTracker } from '../src/controller/expectation-tracker.ts';
import { MirroredTunnels } from '../src/controller/mirrored-tunnels.ts';
import { SliceCache } from '../src/controller/slice-cache.ts';
import { TunnelCache } from '../src/controller/tunnel-cache.ts';
import { Workers } from '../src/controller/workers.ts';
import { Workqueue } from '../src/controller/workqueue.ts';
import type { ExpectationObject, ExpectationSpec } from '../src/core/expectation-object.ts';
import { createNames } from '../src/core/names.ts';
import { manifestFor, type TunnelObject } from '../src/core/tunnel-object.ts';

const TUNNELS = Number(process.argv[2] ?? 100_000);
const EXPECTATIONS = Number(process.argv[3] ?? 10_000);
const NODES = TUNNELS / 2;
const CHANGES = 200_000;
const CHANGES_PER_TICK = 100;
const IDLE_MS = 15_000;
const CHURN_MS = 60_000;
const CHURN_PER_SECOND = 200;
const STATUS = {
  state: 'Connected',
  conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
};

const names = createNames((text) => hash('sha256', text, 'buffer'));
let version = 1;

/** The object of a tunnel: each node of 20 tenants has one tunnel to each of two reporters, of 100. */
function objectOf(index: number): TunnelObject {
  const node = Math.floor(index / 2);
  const reporter = { cluster: 'edge', id: `responder-${(node % 50) * 2 + (index % 2)}` };
  const { name, labels, spec } = manifestFor(names, reporter, {
    name: `node-${node}`,
    tenantID: `tenant-${node % 20}`,
    clusterID: `cluster-${node % 7}`,
    nodeID: `node-${node}`,
    createdAt: undefined,
  });
  version += 1;
  const metadata = { name, labels, uid: `uid-${index}`, resourceVersion: String(version) };
  return { metadata, spec, status: STATUS };
}

/** Seven in ten expectations are about one node; the others list ten nodes, or select by labels. */
function specOf(index: number): ExpectationSpec {
  const node = (index * 5) % NODES;
  const common = { minTunnels: 1, minReporters: 2, gracePeriod: '60s' };
  if (index % 10 < 7)
    return { ...common, match: { tenantID: `tenant-${node % 20}`, nodeID: `node-${node}` } };
  if (index % 10 < 9)
    return {
      ...common,
      match: { nodes: Array.from({ length: 10 }, (_, offset) => `node-${(node + offset) % NODES}`) },
    };
  const matchLabels = { 'reverse-tunnel.io/tenant': `tenant-${node % 20}` };
  const values = [`node-${node}`, `node-${(node + 20) % NODES}`];
  const matchExpressions = [{ key: 'reverse-tunnel.io/node', operator: 'In', values }];
  return { ...common, match: { selector: { matchLabels, matchExpressions } } };
}

function createCaches() {
  const tunnels = new TunnelCache(names, { tunnel: () => undefined });
  const expectations = new ExpectationCache();
  tunnels.replaceBegin();
  for (let index = 0; index < TUNNELS; index += 1) tunnels.replaceItem(objectOf(index));
  tunnels.replaceEnd(String(version));
  expectations.replaceBegin();
  expectations.replaceEnd();
  return { tunnels, expectations };
}

function heapMiB(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

/** Returns the CPU time of the process while `work` runs, in ms. */
async function cpuMs(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

const tick = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** Removes tunnels and adds them again after a while, so that their expectations fall short in the meantime. */
async function interrupt(tunnels: TunnelCache, changes: number): Promise<void> {
  for (let done = 0; done < changes; done += CHANGES_PER_TICK) {
    const objects = Array.from({ length: CHANGES_PER_TICK / 2 }, (_, index) =>
      objectOf(((done + 2 * index) * 7919) % TUNNELS),
    );
    for (const object of objects) tunnels.event('DELETED', object);
    for (let ticks = 0; ticks < 10; ticks += 1) await tick();
    for (const object of objects) {
      version += 1;
      const metadata = { ...object.metadata, resourceVersion: String(version) };
      tunnels.event('ADDED', { ...object, metadata });
    }
    for (let ticks = 0; ticks < 10; ticks += 1) await tick();
  }
}

/** Removes and adds tunnels in turn. */
async function change(tunnels: TunnelCache, changes: number, pauseMs = 0): Promise<void> {
  for (let done = 0; done < changes; done += CHANGES_PER_TICK) {
    for (let index = done; index < done + CHANGES_PER_TICK; index += 2) {
      const object = objectOf((index * 7919) % TUNNELS);
      tunnels.event('DELETED', object);
      tunnels.event('ADDED', {
        ...object,
        metadata: { ...object.metadata, resourceVersion: String((version += 1)) },
      });
    }
    if (pauseMs === 0) await tick();
    else await delay(pauseMs);
  }
}

const baselineMs = await cpuMs(async () => {
  const { tunnels } = createCaches();
  await change(tunnels, 20_000);
});
const { tunnels, expectations } = createCaches();
await change(tunnels, 20_000);
const withoutMs = await cpuMs(() => change(tunnels, CHANGES));
const interruptedWithoutMs = await cpuMs(() => interrupt(tunnels, CHANGES));
const heapBefore = heapMiB();

/** Statuses written. */
const counter = { writes: 0 };
const queue = new Workqueue(systemClock);
const leader = { isHeld: true };
const slices = new SliceCache(names, { tunnel: () => undefined });
slices.onKindMissing();
const mirrored = new MirroredTunnels(tunnels, slices);
const log = pino({ level: 'warn' });
const tracker = new ExpectationTracker({
  expectations,
  tunnels: mirrored,
  names,
  leader,
  queue,
  clock: systemClock,
  log,
});
const workers = new Workers({
  queue,
  reconciler: new ExpectationReconciler({
    api: {
      async patchStatus(name, _resourceVersion, status) {
        await Promise.resolve();
        counter.writes += 1;
        const object = expectations.get(name);
        if (object === undefined) throw new Error(`no expectation ${name}`);
        const metadata = { ...object.metadata, resourceVersion: String((version += 1)) };
        return { ...object, metadata, status: status as NonNullable<ExpectationObject['status']> };
      },
    },
    cache: expectations,
    tracker,
    leader,
    events: { recordFor() {} },
    clock: systemClock,
    rewrites: { record() {} },
    log,
  }),
  concurrency: 4,
  backoff: 'held',
  onUnreachable: { retryNow() {} },
  retryCounter: { inc() {} },
  clock: systemClock,
  random: () => 0.5,
  log,
});
mirrored.addEventHandler(tracker);
expectations.addEventHandler(tracker);
expectations.replaceBegin();
for (let index = 0; index < EXPECTATIONS; index += 1) {
  const metadata = { name: `e-${index}`, uid: `e-${index}`, resourceVersion: '1', generation: 1 };
  expectations.replaceItem({ metadata, spec: specOf(index) });
}
expectations.replaceEnd();

tracker.start();
workers.start();
const startMs = performance.now();
const firstMs = await cpuMs(async () => {
  while (counter.writes < EXPECTATIONS) await delay(5);
});
const firstWallMs = performance.now() - startMs;
const firstWrites = counter.writes;
const heapAfter = heapMiB();

counter.writes = 0;
const idleMs = await cpuMs(() => delay(IDLE_MS));
const idleWrites = counter.writes;

await change(tunnels, 20_000);
counter.writes = 0;
const withMs = await cpuMs(() => change(tunnels, CHANGES));
const burstWrites = counter.writes;
counter.writes = 0;
const interruptedWithMs = await cpuMs(() => interrupt(tunnels, CHANGES));
const interruptedWrites = counter.writes;

counter.writes = 0;
const churned = (CHURN_MS / 1000) * CHURN_PER_SECOND;
await change(tunnels, churned, (CHANGES_PER_TICK * 1000) / CHURN_PER_SECOND);
const churnWrites = counter.writes;
tracker.stop();
workers.stop();

const perChange = (ms: number): string => `${((ms / CHANGES) * 1000).toFixed(2)} µs`;
const lines: readonly [string, string][] = [
  ['tunnels, expectations', `${TUNNELS}, ${EXPECTATIONS}`],
  ['first evaluation: wall, CPU', `${firstWallMs.toFixed(0)} ms, ${firstMs.toFixed(0)} ms`],
  ['first evaluation: statuses written', String(firstWrites)],
  ['memory', `${(heapAfter - heapBefore).toFixed(1)} MiB`],
  [`idle for ${IDLE_MS / 1000} s: CPU, writes`, `${idleMs.toFixed(0)} ms, ${idleWrites}`],
  ['CPU per change without expectations', perChange(withoutMs)],
  ['CPU per change with them', perChange(withMs)],
  ['added by expectations', perChange(withMs - withoutMs)],
  [`${CHANGES} changes at once: writes`, String(burstWrites)],
  ['added per change that makes one fall short', perChange(interruptedWithMs - interruptedWithoutMs)],
  [`${CHANGES} such changes: writes`, String(interruptedWrites)],
  [`${churned} changes in ${CHURN_MS / 1000} s: writes`, String(churnWrites)],
];
process.stdout.write(lines.map(([name, value]) => `${name.padEnd(42)} ${value}\n`).join(''));
process.stdout.write(`(warm-up ${baselineMs.toFixed(0)} ms)\n`);
