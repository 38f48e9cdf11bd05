import type { Expectation } from '../core/expectation.ts';
import type { ExpectationSpec, ExpectationStatusPatch } from '../core/expectation-object.ts';
import type { ExpectationTally } from '../core/expectation-tally.ts';
import type { ExpectationState, Progress } from '../core/expectation-status.ts';
import type { TokenBucket } from '../core/token-bucket.ts';
import type { TunnelGroup } from '../core/tunnel-groups.ts';

/** How long changed counts wait for further changes before they are written. */
export const COUNTS_DELAY_MS = 10_000;

/** A status that admission rewrote or the CRD pruned. */
export interface RewrittenExpectationStatus {
  readonly status: ExpectationStatusPatch;
  /** When the same status is written again, monotonic ms. */
  readonly retryAtMs: number;
}

/** What the leader knows about one expectation. */
export interface ExpectationEntry {
  readonly name: string;
  readonly uid: string;
  /** The spec that is evaluated, and its generation; a newer one may wait. Written by `ExpectationTracker`. */
  spec: ExpectationSpec;
  generation: number;
  expectation: Expectation;
  /** One per match, in the same order. Empty while the expectation is paused or invalid. */
  members: readonly GroupMember[];
  /** Undefined until all groups have been counted. */
  tally: ExpectationTally | undefined;
  /** Written by both, with each evaluation. */
  progress: Progress;
  /** The result that was last compared with the status. Written by the reconciler; undefined before the first. */
  state: ExpectationState | undefined;
  reason: string | undefined;
  /** When changed counts are written, monotonic ms; undefined if the status shows them. Set by both. */
  countsDueMs: number | undefined;
  /** The last written status if it was stored with another value; written by the reconciler. */
  rewritten: RewrittenExpectationStatus | undefined;
  /** False from an edit until the reconciler has evaluated it. */
  isEvaluated: boolean;
  /** Limits for edits and for writes of this expectation. */
  readonly edits: TokenBucket;
  readonly writes: TokenBucket;
}

/** A group of tunnels with the expectations that depend on it. */
export interface CountedGroup {
  readonly group: TunnelGroup;
  /**
   * - `waiting`: the next scan of all objects counts its tunnels.
   * - `counting`: a scan is in progress; changes since its start are applied as well.
   * - `counted`.
   */
  phase: 'waiting' | 'counting' | 'counted';
  readonly members: Set<GroupMember>;
  /** When a change may next be passed on to the members, monotonic ms. */
  nextNotifyMs: number;
}

/** The dependence of an expectation on one of its groups. */
export interface GroupMember {
  readonly counted: CountedGroup;
  readonly entry: ExpectationEntry;
  /** The index of the group within those of the expectation. */
  readonly index: number;
}
