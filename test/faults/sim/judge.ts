import { createdAtText } from '../../../src/core/created-at.ts';
import type { ReporterObject } from '../../../src/core/reporter-object.ts';
import { rowManifest, type RowObject } from '../../../src/core/row.ts';
import { reporterKey } from '../../../src/core/tunnel.ts';
import { privateSizes } from '../../support/private-sizes.ts';
import { names } from './replica-process.ts';
import type { World } from './world.ts';

const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** How the world differs from what it is to come to, once nothing goes wrong any more; empty when in nothing. */
export function differences(world: World): string[] {
  return [
    ...rowDifferences(world),
    ...reporterDifferences(world),
    ...leaseDifferences(world),
    ...leftovers(world),
  ];
}

/** Rows are what reporters that live hold; of others none is left. */
function rowDifferences({ envoys, store }: World): string[] {
  const found: string[] = [];
  const expected = new Map<string, ReturnType<typeof rowManifest>>();
  for (const envoy of envoys) {
    if (!envoy.isUp) continue;
    for (const { reportedMs: _, createdAt, ...rest } of envoy.tunnels().values()) {
      const tunnel = { ...rest, createdAt: createdAtText(createdAt.seconds, createdAt.nanos) };
      const manifest = rowManifest(names, envoy.reporter, tunnel);
      expected.set(manifest.name, manifest);
    }
  }
  for (const object of store.objects('reversetunnels')) {
    const { metadata, spec, status } = object as unknown as RowObject;
    const manifest = expected.get(metadata.name);
    expected.delete(metadata.name);
    if (manifest === undefined) {
      found.push(`row ${metadata.name} of ${spec.reporter.id} should not be`);
      continue;
    }
    if (JSON.stringify(sorted(spec)) !== JSON.stringify(sorted(manifest.spec))) {
      found.push(
        `row ${metadata.name} says ${JSON.stringify(spec)} instead of ${JSON.stringify(manifest.spec)}`,
      );
    }
    for (const [label, value] of Object.entries(manifest.labels)) {
      if (metadata.labels?.[label] !== value)
        found.push(`row ${metadata.name} has label ${label} not ${value}`);
    }
    const [ready, ...others] = status?.conditions ?? [];
    const reported = ready?.status === 'True' && ready.reason === 'Reported' && others.length === 0;
    if (status?.state !== 'Connected' || !reported) {
      found.push(`row ${metadata.name} has status ${JSON.stringify(status)}`);
    }
    if (metadata.deletionTimestamp !== undefined) found.push(`row ${metadata.name} is being deleted`);
  }
  for (const name of expected.keys()) found.push(`row ${name} is missing`);
  return found;
}

/** Each reporter that lives has an object that names who serves it; the others have none. */
function reporterDifferences({ envoys, store, replicas }: World): string[] {
  const found: string[] = [];
  const live = new Map(envoys.filter(({ isUp }) => isUp).map((envoy) => [envoy.key, envoy]));
  const objects = new Map<string, ReporterObject>();
  for (const object of store.objects('reversetunnelreporters')) {
    const reporter = object as unknown as ReporterObject;
    objects.set(reporterKey(reporter.spec), reporter);
    if (!live.has(reporterKey(reporter.spec))) found.push(`reporter ${reporter.metadata.name} should not be`);
  }
  for (const [key, envoy] of live) {
    const object = objects.get(key);
    const stream = envoy.stream();
    if (object === undefined) {
      found.push(`reporter ${envoy.reporter.id} has no object`);
      continue;
    }
    const { status } = object;
    if (stream?.isLive !== true) found.push(`reporter ${envoy.reporter.id} has no stream`);
    else if (status?.owner?.replica !== stream.process.name) {
      found.push(
        `reporter ${envoy.reporter.id} is owned by ${status?.owner?.replica ?? 'nobody'}, served by ${stream.process.name}`,
      );
    }
    for (const type of ['Connected', 'Synced', 'Ready']) {
      const condition = status?.conditions?.find((one) => one.type === type);
      if (condition?.status !== 'True') {
        found.push(
          `reporter ${envoy.reporter.id} is ${type}=${condition?.status ?? ''} ${condition?.reason ?? ''}`,
        );
      }
    }
    const size = envoy.tunnels().size;
    const { reported, applied, rejected } = status?.tunnels ?? {};
    if (reported !== size || applied !== size || rejected !== 0) {
      found.push(`reporter ${envoy.reporter.id} counts ${JSON.stringify(status?.tunnels)}, not ${size}`);
    }
    const owners = replicas().filter(({ parts }) => parts.replica.reporters.isOpen(key));
    if (owners.length !== 1)
      found.push(`reporter ${envoy.reporter.id} has ${owners.length} that take it for theirs`);
  }
  return found;
}

/** Each replica holds its own Lease, and one that lives leads. */
function leaseDifferences({ store, replicas }: World): string[] {
  const found: string[] = [];
  const living = new Set(replicas().map(({ process }) => process.name));
  const holders = new Map<string, unknown>();
  for (const { metadata, spec } of store.objects('leases'))
    holders.set(metadata.name, spec['holderIdentity']);
  for (const name of living) {
    if (holders.get(names.leaseName(name)) !== name) found.push(`${name} does not hold its Lease`);
  }
  const leader = holders.get(LEADER_LEASE);
  if (typeof leader !== 'string' || !living.has(leader))
    found.push(`led by ${String(leader)}, who does not live`);
  return found;
}

/** Nothing waits, and nothing is remembered of what is no more. */
function leftovers(world: World): string[] {
  const found: string[] = [];
  const rows = [...world.store.objects('reversetunnels')].length;
  for (const { process, parts, service } of world.replicas()) {
    const { queue, cache, ledger, replica } = parts;
    if (!queue.idle || queue.delayedCount > 0) {
      found.push(
        `${process.name} has ${queue.depth} keys queued and ${queue.delayedCount} delayed, or works on one`,
      );
    }
    if (cache.size !== rows) found.push(`${process.name} knows ${cache.size} rows of ${rows}`);
    const streams = world.envoys.filter(
      (envoy) => envoy.stream()?.isLive === true && envoy.stream()?.process === process,
    );
    if (service.openStreams !== streams.length) {
      found.push(`${process.name} has ${service.openStreams} streams open, not ${streams.length}`);
    }
    const held = streams.reduce((sum, envoy) => sum + envoy.tunnels().size, 0);
    if (ledger.totalTunnelCount() !== held) {
      found.push(`${process.name} holds ${ledger.totalTunnelCount()} tunnels in its ledger, not ${held}`);
    }
    const entries = [...replica.reporters.entries()].length;
    if (entries !== streams.length)
      found.push(`${process.name} minds ${entries} reporters, not ${streams.length}`);
  }
  return found;
}

/** What is remembered beyond what there is, once nothing has happened for a while: a field that grows with time. */
export function remembered(world: World): string[] {
  const found: string[] = [];
  for (const { process, parts } of world.replicas()) {
    const { queue, cache, ledger, mirror, replica } = parts;
    const streams = [...replica.reporters.entries()].length;
    const expected: [what: string, of: object, sizes: Record<string, number>][] = [
      ['queue', queue, { '#lanes': 0 }],
      ['row cache', cache, { '#echoes': 0 }],
      ['ledger', ledger, { '#holdings': streams }],
      ['mirror', mirror, { '#connected': streams, '#leftAlone': 0 }],
    ];
    for (const [what, of, sizes] of expected) {
      const has = privateSizes(of);
      for (const [field, size] of Object.entries(sizes)) {
        if (has[field] !== size)
          found.push(`${process.name}: ${what} ${field} holds ${has[field]}, not ${size}`);
      }
    }
  }
  return found;
}

function sorted(object: object): [string, unknown][] {
  return Object.entries(object)
    .map(([field, value]): [string, unknown] => [
      field,
      typeof value === 'object' && value !== null ? sorted(value as object) : value,
    ])
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
}
