import type { Ledger, TunnelState } from '../core/ledger.ts';
import type { Representation } from '../core/representation.ts';
import type { Tunnel } from '../core/tunnel.ts';
import type { Authorizer } from './authorizer.ts';
import type { SliceCache } from './slice-cache.ts';

export interface RepresentationsOptions {
  readonly ledger: Pick<Ledger, 'tunnelState'>;
  readonly slices: Pick<SliceCache, 'isServed'>;
  readonly authorizer: Pick<Authorizer, 'grantFor'>;
  /** `--representation`. Default: objects. */
  readonly settings: { readonly representation?: Representation | undefined };
}

/** What must be shown about a tunnel. */
export interface DesiredTunnel {
  readonly state: TunnelState;
  /** True if the tunnel, as reported or otherwise as shown, must be an entry of a slice, false if it must be an object. */
  readonly usesSlice: boolean;
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

  /**
   * Returns what must be shown about a tunnel, and in which form.
   *
   * @param observed the tunnel as it is shown; undefined if it is not
   */
  desired(key: string, tunnelName: string, observed: Tunnel | undefined): DesiredTunnel {
    const state = this.#options.ledger.tunnelState(key, tunnelName, observed);
    if (state.state === 'absent') return { state, usesSlice: false };
    const tunnel = state.state === 'present' ? state.tunnel : observed;
    return { state, usesSlice: tunnel !== undefined && this.#usesSlice(key, tunnel) };
  }

  #usesSlice(key: string, tunnel: Tunnel): boolean {
    const { slices, authorizer, settings } = this.#options;
    if (!slices.isServed) return false;
    const { representation } = authorizer.grantFor(key);
    return (representation?.(tunnel) ?? settings.representation) === 'slices';
  }
}
