import type { TunnelAction } from './plan.ts';
import { Drift, type ObservedTunnel } from './tunnel-object.ts';
import { sameIdentity, sameTunnel, type Tunnel } from './tunnel.ts';

/** Why the object of a tunnel changed. The set is closed; docs/tunnel-log.md describes each reason. */
export const TRANSITION_REASONS = [
  'Connected',
  'Removed',
  'AbsentFromFullPush',
  'Expired',
  'ReporterDeleted',
  'PolicyDenied',
  'PolicyAllowed',
  'MarkedUnknown',
  'Recovered',
  'Replaced',
] as const;
export type TransitionReason = (typeof TRANSITION_REASONS)[number];

/** What the object of a tunnel shows after a transition. `Closed`: it is deleted, or only a finalizer keeps it. */
export type TransitionState = 'Connected' | 'Unknown' | 'Closed';

/** A change of a tunnel as its object shows it. */
export interface TunnelTransition {
  readonly reason: TransitionReason;
  readonly state: TransitionState;
  /** The tunnel that the object shows; that of the deleted object if `state` is `Closed`. */
  readonly tunnel: Tunnel;
  /** The tunnel that is no longer up, or no longer known to be; undefined if there is none. */
  readonly ended: Tunnel | undefined;
  /** True if `ended` was last known to be up when its reporter disconnected. */
  readonly endedWithReporter: boolean;
}

/**
 * What the ledger does not show, from an earlier event:
 *
 * - `Removed`: a delta named the tunnel.
 * - `PolicyDenied`, `PolicyAllowed`: what the reporter may report has changed.
 * - `Replaced`: the object of the previous tunnel was deleted.
 * - `Recovered`: another client deleted the object.
 * - `Edited`: another client changed `createdAt`.
 */
export type TransitionHint =
  'Removed' | 'PolicyDenied' | 'PolicyAllowed' | 'Replaced' | 'Recovered' | 'Edited';

/** What is known about a tunnel when its object is about to be written. */
export interface TransitionContext {
  /** The tunnel that the reporter holds, whether or not it is permitted. */
  readonly held: Tunnel | undefined;
  /** True if the reporter holds the tunnel and it is permitted. */
  readonly isDesired: boolean;
  /** True after the first full push of the reporter. */
  readonly isComplete: boolean;
  /** True while the removal of the tunnel is held. */
  readonly isHeld: boolean;
  /** True if the reporter object did not exist, so this replica created it to expire the objects. */
  readonly isOrphan: boolean;
  readonly hint: TransitionHint | undefined;
}

/** Returns the transition that a write shows; undefined if it only reverts what another client changed. */
export function transitionOf(action: TunnelAction, context: TransitionContext): TunnelTransition | undefined {
  switch (action.type) {
    case 'create':
      return up(reasonOfCreate(context.hint), action.tunnel);
    case 'patch': {
      const { object, tunnel } = action;
      if (object.tunnel.createdAt === tunnel.createdAt || context.hint === 'Edited') return undefined;
      const state = (object.drift & Drift.unknown) === 0 ? 'Connected' : 'Unknown';
      return { reason: 'Replaced', state, tunnel, ended: object.tunnel, endedWithReporter: false };
    }
    case 'patchStatus': {
      const { drift, tunnel } = action.object;
      if ((drift & Drift.unknown) !== 0) return up('Recovered', tunnel);
      return (drift & Drift.closed) === 0 ? undefined : up(reasonOfCreate(context.hint), tunnel);
    }
    case 'markUnknown':
      return down('MarkedUnknown', 'Unknown', action.object, true);
    case 'expire':
      return down(context.isOrphan ? 'ReporterDeleted' : 'Expired', 'Closed', action.object, true);
    case 'delete':
    case 'markClosed': {
      const reason = reasonOfDelete(action.object, context);
      return reason === undefined ? undefined : down(reason, 'Closed', action.object, false);
    }
  }
}

/** Returns true if the objects of a tunnel show that a write, whose response was lost, took effect. */
export function isApplied(action: TunnelAction, objects: readonly ObservedTunnel[]): boolean {
  if (action.type === 'create') {
    return objects.some(
      ({ tunnel, drift }) => (drift & Drift.terminating) === 0 && sameTunnel(tunnel, action.tunnel),
    );
  }
  const object = objects.find(({ uid }) => uid === action.object.uid);
  if (action.type === 'delete' || action.type === 'expire') return object === undefined;
  if (object === undefined) return false;
  switch (action.type) {
    case 'patch':
      return object.tunnel.createdAt === action.tunnel.createdAt;
    case 'patchStatus':
      return (object.drift & Drift.status) === 0;
    case 'markUnknown':
      return (object.drift & Drift.unknown) !== 0;
    case 'markClosed':
      return (object.drift & Drift.closed) !== 0;
  }
}

function reasonOfCreate(hint: TransitionHint | undefined): TransitionReason {
  return hint === 'PolicyAllowed' || hint === 'Replaced' || hint === 'Recovered' ? hint : 'Connected';
}

function reasonOfDelete(
  { tunnel }: ObservedTunnel,
  { held, isDesired, isComplete, isHeld, hint }: TransitionContext,
): TransitionReason | undefined {
  if (held !== undefined && isDesired) {
    // The same tunnel twice: the other object was created manually.
    return sameIdentity(held, tunnel) ? undefined : 'Replaced';
  }
  if (held !== undefined || hint === 'PolicyDenied') return 'PolicyDenied';
  if (hint === 'Removed') return 'Removed';
  // Before the first full push, only a removal or a policy makes a tunnel absent; during a hold, only a policy.
  return isComplete && !isHeld ? 'AbsentFromFullPush' : 'PolicyDenied';
}

function up(reason: TransitionReason, tunnel: Tunnel): TunnelTransition {
  return { reason, state: 'Connected', tunnel, ended: undefined, endedWithReporter: false };
}

function down(
  reason: TransitionReason,
  state: TransitionState,
  { tunnel }: ObservedTunnel,
  endedWithReporter: boolean,
): TunnelTransition {
  return { reason, state, tunnel, ended: tunnel, endedWithReporter };
}
