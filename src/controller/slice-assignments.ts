import type { Names } from '../core/names.ts';
import { MAX_SLICE_TUNNELS } from '../core/slice-object.ts';
import { SlicePacking } from '../core/slice-packing.ts';
import { parseReporterKey } from '../core/tunnel.ts';
import type { SliceCache } from './slice-cache.ts';

/** The slice that each tunnel is assigned to, by reporter; only for reporters whose slices this replica writes. */
export class SliceAssignments {
  readonly #names: Names;
  readonly #slices: SliceCache;
  /** The most tunnels in a slice. */
  readonly maxTunnels: number;
  readonly #packings = new Map<string, SlicePacking>();

  constructor(names: Names, slices: SliceCache, maxTunnels: number = MAX_SLICE_TUNNELS) {
    this.#names = names;
    this.#slices = slices;
    this.maxTunnels = maxTunnels;
  }

  /** Returns the assignments of a reporter, which start from its slices as observed. */
  packing(key: string): SlicePacking {
    const known = this.#packings.get(key);
    if (known !== undefined) return known;
    const reporter = parseReporterKey(key);
    const packing = new SlicePacking(
      (tenantID, ordinal) => this.#names.sliceObjectName(reporter, tenantID, ordinal),
      this.maxTunnels,
    );
    packing.adopt(this.#slices.slices(key));
    this.#packings.set(key, packing);
    return packing;
  }

  /** Returns the assignments of a reporter; undefined if this replica does not write its slices. */
  known(key: string): SlicePacking | undefined {
    return this.#packings.get(key);
  }

  /** Returns the keys of the reporters whose slices this replica writes. */
  keys(): Iterable<string> {
    return this.#packings.keys();
  }

  /** Forgets the assignments of a reporter; the next ones start from its slices again. */
  forget(key: string): void {
    this.#packings.delete(key);
  }
}
