import type { TunnelAction } from './plan.ts';
import { isEntryUnknown, observedEntry, type ObservedSlice } from './slice-object.ts';
import type { SliceAction } from './slice-plan.ts';
import type { ObservedTunnel } from './tunnel-object.ts';
import { sameIdentity, type Tunnel } from './tunnel.ts';

/** What a write of a slice does to one of its tunnels, in terms of objects. */
export interface EntryChange {
  readonly name: string;
  /** One write, or two if the tunnel is replaced by one with another identity. */
  readonly actions: readonly TunnelAction[];
}

/**
 * Returns what a write of a slice does to its tunnels, as the writes that would do the same to objects. The tunnel log
 * derives transitions from them.
 */
export function entryChanges(action: SliceAction): EntryChange[] {
  switch (action.type) {
    case 'create':
      return action.tunnels.map((tunnel) => ({ name: tunnel.name, actions: [{ type: 'create', tunnel }] }));
    case 'patch':
      return patchedEntries(action.slice, action.tunnels, action.removed);
    case 'patchStatus':
      return markedEntries(action.slice, action.unknown);
    case 'delete':
    case 'markClosed':
    case 'expire': {
      const type = action.type === 'expire' ? 'expire' : 'delete';
      return entriesOf(action.slice).map((object) => ({
        name: object.tunnel.name,
        actions: [{ type, object }],
      }));
    }
  }
}

function patchedEntries(
  slice: ObservedSlice,
  tunnels: readonly Tunnel[],
  removed: readonly string[],
): EntryChange[] {
  const changes: EntryChange[] = [];
  const kept = new Set<string>();
  for (const tunnel of tunnels) {
    const { name } = tunnel;
    kept.add(name);
    const object = observedEntry(slice, name);
    if (object === undefined) changes.push({ name, actions: [{ type: 'create', tunnel }] });
    else if (!sameIdentity(object.tunnel, tunnel)) {
      const actions: TunnelAction[] = [
        { type: 'delete', object },
        { type: 'create', tunnel },
      ];
      changes.push({ name, actions });
    } else if (object.tunnel.createdAt !== tunnel.createdAt)
      changes.push({ name, actions: [{ type: 'patch', object, tunnel }] });
  }
  for (const name of removed) {
    const object = kept.has(name) ? undefined : observedEntry(slice, name);
    if (object !== undefined) changes.push({ name, actions: [{ type: 'delete', object }] });
  }
  return changes;
}

function markedEntries(slice: ObservedSlice, unknown: ReadonlySet<string>): EntryChange[] {
  const changes: EntryChange[] = [];
  for (const object of entriesOf(slice)) {
    const { name } = object.tunnel;
    if (isEntryUnknown(slice, name) === unknown.has(name)) continue;
    const type = unknown.has(name) ? 'markUnknown' : 'patchStatus';
    changes.push({ name, actions: [{ type, object }] });
  }
  return changes;
}

function entriesOf(slice: ObservedSlice): ObservedTunnel[] {
  return Array.from(slice.entries.keys(), (name) => observedEntry(slice, name)).filter(
    (entry) => entry !== undefined,
  );
}
