import type { ObservedSlice } from '../core/slice-object.ts';
import { observedEntry } from '../core/slice-object.ts';
import type { ObservedTunnel } from '../core/tunnel-object.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';

/** Decides which form of a tunnel counts. */
export interface FormSelector {
  /** Returns true if the entry of a tunnel counts, and its objects do not. */
  entryCounts(key: string, tunnelName: string): boolean;
}

/** A slice as it was, with the entries that count. */
interface SliceCopy {
  readonly key: string;
  readonly slice: ObservedSlice;
  /** Undefined: all entries. */
  readonly counted: readonly string[] | undefined;
}

/**
 * Returns all tunnels as of now with the keys of their reporters, each in the form that counts. What the caches contain
 * later does not change the result, however long it takes to read it. Only references are copied, one per object and one
 * per slice: the entries of 1,000,000 tunnels in the form of objects would take 100 MB and a second.
 */
export function snapshotTunnels(
  objects: TunnelCache,
  slices: SliceCache,
  selector: FormSelector,
): Iterable<[key: string, tunnel: ObservedTunnel]> {
  const keys: string[] = [];
  const tunnels: ObservedTunnel[] = [];
  for (const [key, object] of objects.observed()) {
    if (slices.sliceCountOf(key) > 0 && selector.entryCounts(key, object.tunnel.name)) continue;
    keys.push(key);
    tunnels.push(object);
  }
  const copies: SliceCopy[] = [];
  for (const key of slices.reporterKeys()) {
    const mustSelect = objects.tunnelCount(key) > 0 || hasDuplicates(slices, key);
    for (const slice of slices.slices(key))
      copies.push({
        key,
        slice,
        counted: mustSelect ? countedNames(key, slice, slices, selector) : undefined,
      });
  }
  return readSnapshot(keys, tunnels, copies);
}

function* readSnapshot(
  keys: readonly string[],
  tunnels: readonly ObservedTunnel[],
  copies: readonly SliceCopy[],
): Generator<[key: string, tunnel: ObservedTunnel]> {
  for (const [index, tunnel] of tunnels.entries()) yield [keys[index] ?? '', tunnel];
  for (const { key, slice, counted } of copies) {
    for (const name of counted ?? slice.entries.keys()) {
      const tunnel = observedEntry(slice, name);
      if (tunnel !== undefined) yield [key, tunnel];
    }
  }
}

/** Returns true if a tunnel of a reporter is in several slices. */
function hasDuplicates(slices: SliceCache, key: string): boolean {
  let entries = 0;
  for (const slice of slices.slices(key)) entries += slice.entries.size;
  return entries > slices.tunnelCount(key);
}

/** Returns the tunnels of a slice that count there, and neither in another slice nor as objects. */
function countedNames(
  key: string,
  slice: ObservedSlice,
  slices: SliceCache,
  selector: FormSelector,
): string[] {
  return [...slice.entries.keys()].filter(
    (name) => slices.tunnel(key, name)?.name === slice.name && selector.entryCounts(key, name),
  );
}
