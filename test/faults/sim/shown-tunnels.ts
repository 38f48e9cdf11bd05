import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';
import type { ApiChange } from '../../../embedded-api-server/watch-cache.ts';
import type { SliceObjectSpec } from '../../../src/core/slice-object.ts';
import type { TunnelObjectSpec } from '../../../src/core/tunnel-object.ts';
import { reporterKey } from '../../../src/core/tunnel.ts';
import type { SimApi } from './sim-api.ts';

/** A tunnel that no object and no slice shows any longer. */
export interface HiddenTunnel {
  readonly key: string;
  readonly tunnelName: string;
  readonly tenantID: string;
  /** Since when it was shown without an interruption, in fake time. */
  readonly shownMs: number;
}

const FORMS = ['reversetunnels', 'reversetunnelslices'];

/** Follows which tunnels are shown by a ReverseTunnel object or by the entry of a slice, whatever form it is. */
export class ShownTunnels {
  readonly #store: SimApi;
  readonly #shownMs = new Map<string, number>();

  constructor(store: SimApi) {
    this.#store = store;
  }

  /** Records a change of an object or a slice. Returns the tunnels that nothing shows any longer. */
  onChange({ resource, type, object, before }: ApiChange, nowMs: number): HiddenTunnel[] {
    const after = type === 'DELETED' ? undefined : object;
    const shown = after === undefined ? [] : tunnelsIn(resource, after);
    for (const { id } of shown) if (!this.#shownMs.has(id)) this.#shownMs.set(id, nowMs);
    const gone = (before === undefined ? [] : tunnelsIn(resource, before)).filter(
      ({ id }) => !shown.some((tunnel) => tunnel.id === id),
    );
    if (gone.length === 0) return [];
    const ids = this.#shownIds();
    return gone
      .filter(({ id }) => !ids.has(id))
      .map(({ id, key, tunnelName, tenantID }) => {
        const shownMs = this.#shownMs.get(id) ?? nowMs;
        this.#shownMs.delete(id);
        return { key, tunnelName, tenantID, shownMs };
      });
  }

  /** Returns the tunnels that would be hidden if an object or a slice had other content. */
  hiddenBy(resource: string, name: string, after: ApiServerObject | undefined): string[] {
    const before = this.#store.get(resource, name);
    const kept = after === undefined ? [] : tunnelsIn(resource, after);
    const others = this.#shownIds(name);
    return (before === undefined ? [] : tunnelsIn(resource, before))
      .filter(({ id }) => !others.has(id) && !kept.some((tunnel) => tunnel.id === id))
      .map(({ tunnelName }) => tunnelName);
  }

  #shownIds(except?: string): Set<string> {
    const ids = new Set<string>();
    for (const resource of FORMS) {
      for (const object of this.#store.objects(resource)) {
        if (object.metadata.name === except) continue;
        for (const { id } of tunnelsIn(resource, object)) ids.add(id);
      }
    }
    return ids;
  }
}

function tunnelsIn(
  resource: string,
  { spec }: ApiServerObject,
): { readonly id: string; readonly key: string; readonly tunnelName: string; readonly tenantID: string }[] {
  if (resource === 'reversetunnelslices') {
    const { reporter, tenantID, tunnels = [] } = spec as unknown as SliceObjectSpec;
    const key = reporterKey(reporter);
    return tunnels.map(({ name }) => ({ id: `${key}\0${name}`, key, tunnelName: name, tenantID }));
  }
  const { reporter, tenantID, tunnelName } = spec as unknown as TunnelObjectSpec;
  const key = reporterKey(reporter);
  return [{ id: `${key}\0${tunnelName}`, key, tunnelName, tenantID }];
}
