import type { Representation } from '../core/representation.ts';
import type { Tunnel } from '../core/tunnel.ts';
import type { Authorizer } from './authorizer.ts';
import type { SliceCache } from './slice-cache.ts';

export interface RepresentationsOptions {
  readonly slices: Pick<SliceCache, 'isServed'>;
  readonly authorizer: Pick<Authorizer, 'grantFor'>;
  /** `--representation`. Default: objects. */
  readonly settings: { readonly representation?: Representation | undefined };
}

/**
 * How tunnels are represented in the API: by the policy rules that permit them, otherwise by `--representation`. An API
 * server without slices shows objects only.
 */
export class Representations {
  readonly #options: RepresentationsOptions;

  constructor(options: RepresentationsOptions) {
    this.#options = options;
  }

  /** Returns false if no tunnel of a reporter is represented in slices. */
  mayUseSlices(key: string): boolean {
    const { slices, authorizer, settings } = this.#options;
    if (!slices.isServed) return false;
    return settings.representation === 'slices' || authorizer.grantFor(key).representation !== undefined;
  }

  /** Returns true if a tunnel is represented by an entry of a slice, false if it is by an object. */
  usesSlice(key: string, tunnel: Tunnel): boolean {
    const { slices, authorizer, settings } = this.#options;
    if (!slices.isServed) return false;
    const { representation } = authorizer.grantFor(key);
    return (representation?.(tunnel) ?? settings.representation) === 'slices';
  }
}
