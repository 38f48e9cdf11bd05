import type { DisconnectPhase } from './grace-timer.ts';
import type { TunnelState } from './ledger.ts';
import { Drift, type ObservedTunnel } from './tunnel-object.ts';
import { sameIdentity, type Tunnel } from './tunnel.ts';

/** One API write that brings the objects of a tunnel closer to the desired state. */
export type TunnelAction =
  | { readonly type: 'create'; readonly tunnel: Tunnel }
  /** Merge patch of the mutable parts: labels and createdAt. */
  | { readonly type: 'patch'; readonly object: ObservedTunnel; readonly tunnel: Tunnel }
  | { readonly type: 'patchStatus'; readonly object: ObservedTunnel }
  | { readonly type: 'delete'; readonly object: ObservedTunnel }
  /** Sets the status to Unknown because the reporter is disconnected. */
  | { readonly type: 'markUnknown'; readonly object: ObservedTunnel }
  /** Expiry delete: the reporter has been disconnected for too long. */
  | { readonly type: 'expire'; readonly object: ObservedTunnel };

/**
 * Compares the desired state of a tunnel with its objects and returns the next write; undefined if there is no
 * difference. Repeated calls terminate, because every write removes one difference.
 *
 * Spec is immutable except for createdAt, so a change of identity takes two writes: the old object is deleted, then the
 * new one is created (under the same name, unless the initiator's node ID changed).
 *
 * @param objects normally none or one; more if an object was created manually
 */
export function nextAction(state: TunnelState, objects: readonly ObservedTunnel[]): TunnelAction | undefined {
  if (state.state === 'unknown') return undefined;
  const desired = state.state === 'present' ? state.tunnel : undefined;
  let kept: ObservedTunnel | undefined;
  for (const object of objects) {
    if ((object.drift & Drift.terminating) !== 0) continue;
    const stays =
      desired !== undefined && (object.drift & Drift.name) === 0 && sameIdentity(object.tunnel, desired);
    if (!stays) return { type: 'delete', object };
    kept = object;
  }
  if (desired === undefined) return undefined;
  if (kept === undefined) return { type: 'create', tunnel: desired };
  if ((kept.drift & Drift.labels) !== 0 || kept.tunnel.createdAt !== desired.createdAt) {
    return { type: 'patch', object: kept, tunnel: desired };
  }
  return (kept.drift & Drift.status) === 0 ? undefined : { type: 'patchStatus', object: kept };
}

/**
 * Returns the next write to the objects of a tunnel whose reporter is disconnected. In the grace phase, the last report
 * is still applied. Then the objects are set to Unknown, and finally they are deleted, including those that were created
 * manually. After the grace phase, no objects are created.
 */
export function nextDisconnectedAction(
  state: TunnelState,
  objects: readonly ObservedTunnel[],
  phase: DisconnectPhase,
): TunnelAction | undefined {
  if (phase === 'grace') return nextAction(state, objects);
  const existing = objects.filter((object) => (object.drift & Drift.terminating) === 0);
  if (phase === 'expired') {
    const [object] = existing;
    return object === undefined ? undefined : { type: 'expire', object };
  }
  const [first] = existing;
  if (state.state === 'absent') return first === undefined ? undefined : { type: 'delete', object: first };
  const unmarked = existing.find((object) => (object.drift & Drift.unknown) === 0);
  return unmarked === undefined ? undefined : { type: 'markUnknown', object: unmarked };
}
