import { parsePolicy } from '../../src/core/policy.ts';
import { createPolicySet, type PolicySet } from '../../src/core/policy-set.ts';
import type { Representation } from '../../src/core/representation.ts';
import type { SliceObject } from '../../src/core/slice-object.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { createHarness, type ControllerHarness } from './controller-harness.ts';
import { MemorySliceApi, type MemoryTunnelApi } from './memory-api.ts';
import { tunnel } from './sample-tunnels.ts';

/** Longer than changes of a slice are collected. */
export const BATCH_MS = 250;

/** A replica with an API server that serves slices. */
export interface SliceWorld extends ControllerHarness {
  readonly sliceApi: MemorySliceApi;
}

/** Starts a replica that represents tunnels in slices, unless the options say otherwise. */
export async function startWithSlices(
  options: Parameters<typeof createHarness>[0] = {},
): Promise<SliceWorld> {
  const sliceApi = options.sliceApi ?? new MemorySliceApi();
  const world = createHarness({ representation: 'slices', ...options, sliceApi });
  await world.start();
  return { ...world, sliceApi };
}

/** Returns the tunnels `node-FROM` to `node-TO`. */
export function tunnelRange(from: number, to: number, overrides: Partial<Tunnel> = {}): Tunnel[] {
  return Array.from({ length: to - from + 1 }, (_, index) => tunnel(`node-${from + index}`, overrides));
}

/** Returns the slices in the API server. */
export function storedSlices({ sliceApi }: Pick<SliceWorld, 'sliceApi'>): SliceObject[] {
  return [...sliceApi.stored.values()];
}

/** Returns the names of all tunnels in slices, sorted; a name appears once per slice that shows it. */
export function namesInSlices(world: Pick<SliceWorld, 'sliceApi'>): string[] {
  return storedSlices(world)
    .flatMap(({ spec }) => (spec.tunnels ?? []).map(({ name }) => name))
    .toSorted();
}

/** Returns the names of all tunnels with an object, sorted. */
export function namesInObjects({ api }: Pick<SliceWorld, 'api'>): string[] {
  return [...api.stored.values()].map(({ spec }) => spec.tunnelName).toSorted();
}

/** Returns the names of tunnels, sorted. */
export function sortedNames(tunnels: readonly Tunnel[]): string[] {
  return tunnels.map(({ name }) => name).toSorted();
}

/** Counts the calls since the last time, by verb. */
export function countVerbs(api: MemorySliceApi | MemoryTunnelApi): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { verb } of api.calls.splice(0)) counts[verb] = (counts[verb] ?? 0) + 1;
  return counts;
}

/** Returns policies that allow everything, and represent all tunnels in one form. */
export function representAllAs(representation: Representation): PolicySet {
  const { rules = [] } = parsePolicy({
    rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'], representation }],
  });
  return createPolicySet(rules);
}

/** Checks after each call, whether it succeeded or not, that each of the tunnels exists in at least one form. */
export function collectGaps(world: SliceWorld, expected: () => readonly Tunnel[]): string[] {
  const gaps: string[] = [];
  const check = (): void => {
    const shown = new Set([...namesInSlices(world), ...namesInObjects(world)]);
    for (const { name } of expected()) if (!shown.has(name)) gaps.push(name);
  };
  world.api.onChange = check;
  world.sliceApi.onChange = check;
  return gaps;
}
