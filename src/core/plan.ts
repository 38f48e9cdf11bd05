import type { DisconnectPhase } from './grace-timer.ts';
import type { TunnelState } from './ledger.ts';
import { Drift, type ObservedTunnel } from './tunnel-object.ts';
import { sameIdentity, type Tunnel } from './tunnel.ts';

/** One write to the API that brings the rows of a tunnel closer to what they are to be. */
export type TunnelAction =
  | { readonly type: 'create'; readonly tunnel: Tunnel }
  /** Merge patch of what may change on a row that stays: labels, createdAt. */
  | { readonly type: 'patch'; readonly object: ObservedTunnel; readonly tunnel: Tunnel }
  | { readonly type: 'patchStatus'; readonly object: ObservedTunnel }
  | { readonly type: 'delete'; readonly object: ObservedTunnel }
  /** Status: nobody knows, as the reporter is lost. */
  | { readonly type: 'markUnknown'; readonly object: ObservedTunnel }
  /** Delete, because the reporter has been lost for too long. */
  | { readonly type: 'expire'; readonly object: ObservedTunnel };

/**
 * Compares what is known of a tunnel with the rows that stand for it and gives the next write that is due; undefined
 * when all is as it should be. Asked again after each write, it comes to an end: every step removes one difference.
 *
 * Spec is immutable but for createdAt, so another identity takes two writes: the old row is deleted, then the new one
 * created (under the same name, unless the initiator's node id changed).
 *
 * @param objects normally none or one; more when somebody made a row by hand
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
 * The next write that is due on the rows of a tunnel whose reporter is lost: at first what its last words left to do;
 * then its rows are marked, and in the end deleted, whoever made them. Nothing is created for a reporter that is gone.
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
