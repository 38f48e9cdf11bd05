import type { DisconnectPhase } from './grace-timer.ts';
import type { TunnelState } from './ledger.ts';
import { ObjectParts } from './rewrite.ts';
import { Drift, type ObservedTunnel } from './tunnel-object.ts';
import { sameIdentity, type Tunnel } from './tunnel.ts';

/** One API write that brings the objects of a tunnel closer to the desired state. */
export type TunnelAction =
  | { readonly type: 'create'; readonly tunnel: Tunnel }
  /** Merge patch of the mutable parts: labels, createdAt, and the annotation with an omitted createdAt. */
  | { readonly type: 'patch'; readonly object: ObservedTunnel; readonly tunnel: Tunnel }
  | { readonly type: 'patchStatus'; readonly object: ObservedTunnel }
  | { readonly type: 'delete'; readonly object: ObservedTunnel }
  /** Sets the status of an object that a finalizer keeps to Closed. */
  | { readonly type: 'markClosed'; readonly object: ObservedTunnel }
  /** Sets the status to Unknown because the reporter is disconnected. */
  | { readonly type: 'markUnknown'; readonly object: ObservedTunnel }
  /** Expiry delete: the reporter has been disconnected for too long. */
  | { readonly type: 'expire'; readonly object: ObservedTunnel };

/**
 * Returns the parts of an object that must not be written now although they differ; undefined stands for an object that
 * does not exist.
 */
export type ToleratedParts = (object: ObservedTunnel | undefined) => ObjectParts;

const TOLERATE_NOTHING: ToleratedParts = () => 0;

/**
 * Compares the desired state of a tunnel with its objects and returns the next write; undefined if there is no
 * difference. Repeated calls terminate, because every write removes one difference, or makes it tolerated.
 *
 * Spec is immutable except for createdAt, so a change of identity takes two writes: the old object is deleted, then the
 * new one is created (under the same name, unless the initiator's node ID changed).
 *
 * @param objects normally none or one; more if an object was created manually
 */
export function nextAction(
  state: TunnelState,
  objects: readonly ObservedTunnel[],
  tolerated: ToleratedParts = TOLERATE_NOTHING,
): TunnelAction | undefined {
  if (state.state === 'unknown' || state.state === 'held') return undefined;
  const desired = state.state === 'present' ? state.tunnel : undefined;
  let kept: ObservedTunnel | undefined;
  for (const object of objects) {
    const parts = tolerated(object);
    const matches =
      desired !== undefined && (object.drift & Drift.name) === 0 && sameIdentity(object.tunnel, desired);
    if ((object.drift & Drift.terminating) !== 0) {
      const action = nextTerminatingAction(object, matches, parts);
      if (action !== undefined) return action;
      continue;
    }
    const stays = matches || (desired !== undefined && (parts & ObjectParts.identity) !== 0);
    if (!stays) return { type: 'delete', object };
    kept = object;
  }
  if (desired === undefined) return undefined;
  if (kept === undefined) {
    return (tolerated(undefined) & ObjectParts.key) === 0 ? { type: 'create', tunnel: desired } : undefined;
  }
  const parts = tolerated(kept);
  const differs =
    ((kept.drift & Drift.labels) !== 0 && (parts & ObjectParts.labels) === 0) ||
    (kept.tunnel.createdAt !== desired.createdAt && (parts & ObjectParts.createdAt) === 0);
  if (differs) return { type: 'patch', object: kept, tunnel: desired };
  const isStatusCurrent = (kept.drift & Drift.status) === 0 || (parts & ObjectParts.reported) !== 0;
  return isStatusCurrent ? undefined : { type: 'patchStatus', object: kept };
}

/**
 * Returns the write to an object that was deleted and that a finalizer keeps. It counts as absent, but its status must
 * not show a tunnel that has closed as connected.
 */
function nextTerminatingAction(
  object: ObservedTunnel,
  isReported: boolean,
  tolerated: ObjectParts,
): TunnelAction | undefined {
  if (isReported) {
    const isCurrent = (object.drift & Drift.status) === 0 || (tolerated & ObjectParts.reported) !== 0;
    return isCurrent ? undefined : { type: 'patchStatus', object };
  }
  const isCurrent = (object.drift & Drift.closed) !== 0 || (tolerated & ObjectParts.notReported) !== 0;
  return isCurrent ? undefined : { type: 'markClosed', object };
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
  tolerated: ToleratedParts = TOLERATE_NOTHING,
): TunnelAction | undefined {
  if (phase === 'grace') return nextAction(state, objects, tolerated);
  const first = objects.find((object) => (object.drift & Drift.terminating) === 0);
  if (phase === 'expired') return first === undefined ? undefined : { type: 'expire', object: first };
  if (state.state === 'absent') return nextAction(state, objects, tolerated);
  const unmarked = objects.find(
    (object) =>
      (object.drift & (Drift.unknown | Drift.closed)) === 0 &&
      (tolerated(object) & ObjectParts.notReported) === 0,
  );
  return unmarked === undefined ? undefined : { type: 'markUnknown', object: unmarked };
}
