import { formatCreatedAt, reporterKey } from '../../../src/core/tunnel.ts';
import type { ReporterObject } from '../../../src/core/reporter-object.ts';
import { manifestFor, type TunnelObject } from '../../../src/core/tunnel-object.ts';
import { internalSizes } from '../../support/internal-sizes.ts';
import { names } from './replica-process.ts';
import type { SimHarness } from './harness.ts';

const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** How the world differs from what it is to come to, once nothing goes wrong any more; empty when in nothing. */
export function checkConverged(harness: SimHarness): string[] {
  return [
    ...checkTunnelObjects(harness),
    ...checkReporterObjects(harness),
    ...checkLeases(harness),
    ...checkReplicas(harness),
  ];
}

/** Rows are what reporters that live hold; of others none is left. */
function checkTunnelObjects({ envoys, store }: SimHarness): string[] {
  const differences: string[] = [];
  const expected = new Map<string, ReturnType<typeof manifestFor>>();
  for (const envoy of envoys) {
    if (!envoy.isRunning) continue;
    for (const { reportedMs: _, createdAt, ...rest } of envoy.tunnels().values()) {
      const tunnel = { ...rest, createdAt: formatCreatedAt(createdAt.seconds, createdAt.nanos) };
      const manifest = manifestFor(names, envoy.reporter, tunnel);
      expected.set(manifest.name, manifest);
    }
  }
  for (const object of store.objects('reversetunnels')) {
    const { metadata, spec, status } = object as unknown as TunnelObject;
    const manifest = expected.get(metadata.name);
    expected.delete(metadata.name);
    if (manifest === undefined) {
      differences.push(`row ${metadata.name} of ${spec.reporter.id} should not be`);
      continue;
    }
    if (JSON.stringify(sortedEntries(spec)) !== JSON.stringify(sortedEntries(manifest.spec))) {
      differences.push(
        `row ${metadata.name} says ${JSON.stringify(spec)} instead of ${JSON.stringify(manifest.spec)}`,
      );
    }
    for (const [label, value] of Object.entries(manifest.labels)) {
      if (metadata.labels?.[label] !== value)
        differences.push(`row ${metadata.name} has label ${label} not ${value}`);
    }
    const [ready, ...others] = status?.conditions ?? [];
    const reported = ready?.status === 'True' && ready.reason === 'Reported' && others.length === 0;
    if (status?.state !== 'Connected' || !reported) {
      differences.push(`row ${metadata.name} has status ${JSON.stringify(status)}`);
    }
    if (metadata.deletionTimestamp !== undefined) differences.push(`row ${metadata.name} is being deleted`);
  }
  for (const name of expected.keys()) differences.push(`row ${name} is missing`);
  return differences;
}

/** Each reporter that lives has an object that names who serves it; the others have none. */
function checkReporterObjects({ envoys, store, replicas }: SimHarness): string[] {
  const differences: string[] = [];
  const live = new Map(envoys.filter(({ isRunning }) => isRunning).map((envoy) => [envoy.key, envoy]));
  const objects = new Map<string, ReporterObject>();
  for (const object of store.objects('reversetunnelreporters')) {
    const reporter = object as unknown as ReporterObject;
    objects.set(reporterKey(reporter.spec), reporter);
    if (!live.has(reporterKey(reporter.spec)))
      differences.push(`reporter ${reporter.metadata.name} should not be`);
  }
  for (const [key, envoy] of live) {
    const object = objects.get(key);
    const stream = envoy.stream();
    if (object === undefined) {
      differences.push(`reporter ${envoy.reporter.id} has no object`);
      continue;
    }
    const { status } = object;
    if (stream?.isLive !== true) differences.push(`reporter ${envoy.reporter.id} has no stream`);
    else if (status?.owner?.replica !== stream.process.name) {
      differences.push(
        `reporter ${envoy.reporter.id} is owned by ${status?.owner?.replica ?? 'nobody'}, served by ${stream.process.name}`,
      );
    }
    for (const type of ['Connected', 'Synced', 'Ready']) {
      const condition = status?.conditions?.find((candidate) => candidate.type === type);
      if (condition?.status !== 'True') {
        differences.push(
          `reporter ${envoy.reporter.id} is ${type}=${condition?.status ?? ''} ${condition?.reason ?? ''}`,
        );
      }
    }
    const size = envoy.tunnels().size;
    const { reported, applied, rejected } = status?.tunnels ?? {};
    if (reported !== size || applied !== size || rejected !== 0) {
      differences.push(
        `reporter ${envoy.reporter.id} counts ${JSON.stringify(status?.tunnels)}, not ${size}`,
      );
    }
    const owners = replicas().filter(({ components }) => components.replica.reporters.canWrite(key));
    if (owners.length !== 1)
      differences.push(`reporter ${envoy.reporter.id} has ${owners.length} that take it for theirs`);
  }
  return differences;
}

/** Each replica holds its own Lease, and one that lives leads. */
function checkLeases({ store, replicas }: SimHarness): string[] {
  const differences: string[] = [];
  const living = new Set(replicas().map(({ process }) => process.name));
  const holders = new Map<string, unknown>();
  for (const { metadata, spec } of store.objects('leases'))
    holders.set(metadata.name, spec['holderIdentity']);
  for (const name of living) {
    if (holders.get(names.leaseName(name)) !== name) differences.push(`${name} does not hold its Lease`);
  }
  const leader = holders.get(LEADER_LEASE);
  if (typeof leader !== 'string' || !living.has(leader))
    differences.push(`led by ${String(leader)}, who does not live`);
  return differences;
}

/** Nothing waits, and nothing is remembered of what is no more. */
function checkReplicas(harness: SimHarness): string[] {
  const differences: string[] = [];
  const objects = [...harness.store.objects('reversetunnels')].length;
  for (const { process, components, service } of harness.replicas()) {
    const { queue, cache, ledger, replica } = components;
    if (!queue.idle || queue.delayedCount > 0) {
      differences.push(
        `${process.name} has ${queue.depth} keys queued and ${queue.delayedCount} delayed, or works on one`,
      );
    }
    if (cache.size !== objects) differences.push(`${process.name} knows ${cache.size} rows of ${objects}`);
    const streams = harness.envoys.filter(
      (envoy) => envoy.stream()?.isLive === true && envoy.stream()?.process === process,
    );
    if (service.openStreams !== streams.length) {
      differences.push(`${process.name} has ${service.openStreams} streams open, not ${streams.length}`);
    }
    const held = streams.reduce((sum, envoy) => sum + envoy.tunnels().size, 0);
    if (ledger.totalTunnelCount() !== held) {
      differences.push(
        `${process.name} holds ${ledger.totalTunnelCount()} tunnels in its ledger, not ${held}`,
      );
    }
    const entries = [...replica.reporters.entries()].length;
    if (entries !== streams.length)
      differences.push(`${process.name} minds ${entries} reporters, not ${streams.length}`);
  }
  return differences;
}

/** What is remembered beyond what there is, once nothing has happened for a while: a field that grows with time. */
export function findLeaks(harness: SimHarness): string[] {
  const leaks: string[] = [];
  for (const { process, components } of harness.replicas()) {
    const { queue, cache, ledger, enqueuer, replica } = components;
    const streams = [...replica.reporters.entries()].length;
    const expected: [what: string, of: object, sizes: Record<string, number>][] = [
      ['queue', queue, { '#queues': 0 }],
      ['row cache', cache, { '#pendingOwnWrites': 0 }],
      ['ledger', ledger, { '#reporters': streams }],
      ['mirror', enqueuer, { '#connected': streams, '#deferred': 0 }],
    ];
    for (const [what, owner, sizes] of expected) {
      const actual = internalSizes(owner);
      for (const [field, size] of Object.entries(sizes)) {
        if (actual[field] !== size)
          leaks.push(`${process.name}: ${what} ${field} holds ${actual[field]}, not ${size}`);
      }
    }
  }
  return leaks;
}

function sortedEntries(object: object): [string, unknown][] {
  return Object.entries(object)
    .map(([field, value]): [string, unknown] => [
      field,
      typeof value === 'object' && value !== null ? sortedEntries(value as object) : value,
    ])
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}
