import { formatCreatedAt } from '../../../src/grpc/created-at.ts';
import { reporterKey } from '../../../src/core/tunnel.ts';
import type { ReporterObject } from '../../../src/core/reporter-object.ts';
import { manifestFor, OMITTED_CREATED_AT, type TunnelObject } from '../../../src/core/tunnel-object.ts';
import { internalSizes } from '../../support/internal-sizes.ts';
import { names } from './replica-process.ts';
import type { SimHarness } from './harness.ts';
import { checkSliceCaches, checkSlices } from './slice-convergence.ts';

const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** Returns the differences from the expected state after all faults have ended; empty when there are none. */
export function checkConverged(harness: SimHarness): string[] {
  return [
    ...checkTunnelObjects(harness),
    ...checkSlices(harness),
    ...checkSliceCaches(harness),
    ...checkReporterObjects(harness),
    ...checkLeases(harness),
    ...checkReplicas(harness),
  ];
}

/**
 * Every tunnel of a running reporter has an object, and there are no other objects. With `--representation slices`, there
 * are no objects.
 */
function checkTunnelObjects({ envoys, store, representation }: SimHarness): string[] {
  const differences: string[] = [];
  const expected = new Map<string, ReturnType<typeof manifestFor>>();
  for (const envoy of envoys) {
    if (!envoy.isRunning || representation === 'slices') continue;
    for (const { reportedMs: _, createdAt, ...rest } of envoy.tunnels().values()) {
      const tunnel = { ...rest, createdAt: createdAt && formatCreatedAt(createdAt.seconds, createdAt.nanos) };
      const manifest = manifestFor(names, envoy.reporter, tunnel);
      expected.set(manifest.name, manifest);
    }
  }
  for (const object of store.objects('reversetunnels')) {
    const { metadata, spec, status } = object as unknown as TunnelObject;
    const manifest = expected.get(metadata.name);
    expected.delete(metadata.name);
    if (manifest === undefined) {
      differences.push(`unexpected object ${metadata.name} of reporter ${spec.reporter.id}`);
      continue;
    }
    // Whether a time may be omitted is an invariant; nothing that was reported may be lost.
    const omitted = metadata.annotations?.[OMITTED_CREATED_AT];
    const shown = omitted === undefined ? spec : { createdAt: omitted, ...spec };
    if (JSON.stringify(sortedEntries(shown)) !== JSON.stringify(sortedEntries(manifest.spec))) {
      differences.push(
        `object ${metadata.name} has spec ${JSON.stringify(spec)} and omits ${omitted ?? 'nothing'}, expected ${JSON.stringify(manifest.spec)}`,
      );
    }
    for (const [label, value] of Object.entries(manifest.labels)) {
      if (metadata.labels?.[label] !== value)
        differences.push(`object ${metadata.name} lacks label ${label}=${value}`);
    }
    const [ready, ...others] = status?.conditions ?? [];
    const reported = ready?.status === 'True' && ready.reason === 'Reported' && others.length === 0;
    if (status?.state !== 'Connected' || !reported) {
      differences.push(`object ${metadata.name} has status ${JSON.stringify(status)}`);
    }
    if (metadata.deletionTimestamp !== undefined)
      differences.push(`object ${metadata.name} is being deleted`);
  }
  for (const name of expected.keys()) differences.push(`object ${name} is missing`);
  return differences;
}

/**
 * Every running reporter has an object that names the replica of its stream, and there are no other reporter
 * objects.
 */
function checkReporterObjects({ envoys, store, replicas }: SimHarness): string[] {
  const differences: string[] = [];
  const live = new Map(envoys.filter(({ isRunning }) => isRunning).map((envoy) => [envoy.key, envoy]));
  const objects = new Map<string, ReporterObject>();
  for (const object of store.objects('reversetunnelreporters')) {
    const reporter = object as unknown as ReporterObject;
    objects.set(reporterKey(reporter.spec), reporter);
    if (!live.has(reporterKey(reporter.spec)))
      differences.push(`unexpected reporter object ${reporter.metadata.name}`);
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
        `reporter ${envoy.reporter.id} is owned by ${status?.owner?.replica ?? 'no replica'}, served by ${stream.process.name}`,
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
        `reporter ${envoy.reporter.id} has tunnel counts ${JSON.stringify(status?.tunnels)}, expected ${size}`,
      );
    }
    const owners = replicas().filter(({ components }) =>
      components.controllers.writeAuthorizer.canWrite(key),
    );
    if (owners.length !== 1)
      differences.push(
        `reporter ${envoy.reporter.id} has ${owners.length} replicas that consider themselves its owner`,
      );
  }
  return differences;
}

/** Every replica holds its own Lease, and one running replica is the leader. */
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
    differences.push(`leader ${String(leader)} is not running`);
  return differences;
}

/** No work is pending, and nothing is kept for reporters and objects that no longer exist. */
function checkReplicas(harness: SimHarness): string[] {
  const differences: string[] = [];
  const objects = [...harness.store.objects('reversetunnels')].length;
  for (const { process, components, service } of harness.replicas()) {
    const { cache, ledger, controllers } = components;
    const { queue } = controllers.tunnels;
    if (!queue.idle || queue.delayedCount > 0) {
      differences.push(
        `${process.name} has ${queue.depth} keys queued and ${queue.delayedCount} delayed, or is processing one`,
      );
    }
    if (cache.size !== objects)
      differences.push(`${process.name} caches ${cache.size} objects of ${objects}`);
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
    const entries = [...controllers.registry.entries()].length;
    if (entries !== streams.length)
      differences.push(`${process.name} tracks ${entries} reporters, not ${streams.length}`);
  }
  return differences;
}

/** Returns the collections that are larger than expected once nothing has happened for a while: memory leaks. */
export function findLeaks(harness: SimHarness): string[] {
  const leaks: string[] = [];
  for (const { process, components } of harness.replicas()) {
    const { cache, slices, ledger, controllers } = components;
    const { queue, enqueuer } = controllers.tunnels;
    const streams = [...controllers.registry.entries()].length;
    const expected: [what: string, actual: Record<string, number>, sizes: Record<string, number>][] = [
      ['queue', internalSizes(queue), { '#queues': 0 }],
      ['tunnel cache', internalSizes(cache, '#progress'), { '#pendingOwnWrites': 0 }],
      ['slice cache', internalSizes(slices, '#progress'), { '#pendingOwnWrites': 0 }],
      ['ledger', internalSizes(ledger), { '#reporters': streams }],
      ['mirror', internalSizes(enqueuer), { '#deferred': 0 }],
    ];
    for (const [what, actual, sizes] of expected) {
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
