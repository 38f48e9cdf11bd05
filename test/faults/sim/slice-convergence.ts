import type { SliceObject } from '../../../src/core/slice-object.ts';
import { observeSlice } from '../../../src/core/slice-object.ts';
import { formatCreatedAt } from '../../../src/grpc/created-at.ts';
import { reporterKey, sameTunnel, type Tunnel } from '../../../src/core/tunnel.ts';
import { MAX_SLICE_TUNNELS, names } from './replica-process.ts';
import type { SimHarness } from './harness.ts';

/**
 * Every tunnel of a running reporter is in exactly one slice of its tenant, there are no other entries, and no two slices
 * could be merged. With `--representation objects`, there are no slices.
 */
export function checkSlices({ envoys, store, representation }: SimHarness): string[] {
  const differences: string[] = [];
  const expected = new Map<string, Tunnel>();
  for (const envoy of envoys) {
    if (!envoy.isRunning || representation === 'objects') continue;
    for (const { reportedMs: _, createdAt, ...rest } of envoy.tunnels().values()) {
      const text = createdAt && formatCreatedAt(createdAt.seconds, createdAt.nanos);
      expected.set(`${envoy.key}\0${rest.name}`, { ...rest, createdAt: text });
    }
  }
  const halfEmpty = new Set<string>();
  for (const object of store.objects('reversetunnelslices')) {
    const { key, name, tenantID, entries, drift, isUnknown, exceptions } = observeSlice(
      names,
      object as unknown as SliceObject,
      () => undefined,
    );
    if (drift !== 0) differences.push(`slice ${name} has drift ${drift}`);
    if (isUnknown || exceptions.size > 0) differences.push(`slice ${name} is Unknown, or entries of it are`);
    if (entries.size === 0 || entries.size > MAX_SLICE_TUNNELS)
      differences.push(`slice ${name} has ${entries.size} entries`);
    for (const entry of entries.values()) {
      const tunnel = expected.get(`${key}\0${entry.name}`);
      expected.delete(`${key}\0${entry.name}`);
      if (tunnel === undefined) differences.push(`unexpected entry ${entry.name} of slice ${name}`);
      else if (tunnel.tenantID !== tenantID || !sameTunnel(tunnel, entry))
        differences.push(
          `entry ${entry.name} of slice ${name} is ${JSON.stringify(entry)}, expected ${JSON.stringify(tunnel)}`,
        );
    }
    const pair = `${key}\0${tenantID}`;
    if (entries.size <= MAX_SLICE_TUNNELS / 2 && halfEmpty.has(pair))
      differences.push(`slice ${name} is not the only half-empty one`);
    if (entries.size <= MAX_SLICE_TUNNELS / 2) halfEmpty.add(pair);
  }
  for (const [key, { name }] of expected) differences.push(`tunnel ${name} of ${key} is in no slice`);
  return differences;
}

/** Every replica has the slices of the store in its cache. */
export function checkSliceCaches({ store, replicas }: SimHarness): string[] {
  const stored = [...store.objects('reversetunnelslices')].map((object) => object as unknown as SliceObject);
  const entries = new Set<string>();
  for (const { spec } of stored)
    for (const { name } of spec.tunnels ?? []) entries.add(`${reporterKey(spec.reporter)}\0${name}`);
  const differences: string[] = [];
  for (const { process, components } of replicas()) {
    const { slices } = components;
    if (slices.sliceCount !== stored.length || slices.size !== entries.size)
      differences.push(
        `${process.name} caches ${slices.sliceCount} slices of ${stored.length}, and ${slices.size} tunnels of ${entries.size}`,
      );
  }
  return differences;
}
