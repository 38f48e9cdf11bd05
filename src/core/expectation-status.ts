import type { Expectation } from './expectation.ts';
import type { ExpectationObject, ExpectationStatus, ExpectationStatusPatch } from './expectation-object.ts';
import type { Finding, TallySummary } from './expectation-tally.ts';
import { buildCondition, findCondition, type Condition, type ConditionContent } from './kubernetes.ts';
import { sanitize } from './text.ts';

/**
 * The state of an expectation, as its Ready condition and the metric show it.
 *
 * - `pending`: it falls short, was not satisfied so far, and its grace period has not ended.
 * - `unknown`: it falls short, but disconnected reporters may hold what is missing.
 */
export const EXPECTATION_STATES = [
  'satisfied',
  'unsatisfied',
  'unknown',
  'pending',
  'paused',
  'invalid',
] as const;
export type ExpectationState = (typeof EXPECTATION_STATES)[number];

/** What the leader knows about an expectation beyond its object. */
export interface Progress {
  /** The last result that was not subject to a grace period. */
  readonly settled: 'satisfied' | 'unsatisfied' | undefined;
  /** Since when the tunnels have been falling short, by the monotonic clock. */
  readonly shortSinceMs: number | undefined;
}

/** The result of evaluating an expectation at one moment. */
export interface Evaluation {
  readonly state: ExpectationState;
  readonly reason: string;
  readonly progress: Progress;
  /** When the grace period ends, by the monotonic clock; undefined if none is running. */
  readonly graceEndsAtMs: number | undefined;
}

const NO_PROGRESS: Progress = { settled: undefined, shortSinceMs: undefined };

/** Returns the progress that a status shows, from which a new leader starts. A running grace period starts again. */
export function progressFrom({ metadata, status }: ExpectationObject): Progress {
  const state = stateOf(status);
  // An edit neither satisfies an unsatisfied expectation nor starts its grace period.
  if (state === 'unsatisfied' || state === 'unknown') return { ...NO_PROGRESS, settled: 'unsatisfied' };
  const isCurrent = status?.observedGeneration === metadata.generation;
  return state === 'satisfied' && isCurrent ? { ...NO_PROGRESS, settled: 'satisfied' } : NO_PROGRESS;
}

/** Returns the progress after an edit of what is expected: the new expectation was not satisfied so far. */
export function progressAfterEdit({ settled, shortSinceMs }: Progress): Progress {
  return { settled: settled === 'satisfied' ? undefined : settled, shortSinceMs };
}

/**
 * Evaluates an expectation.
 *
 * @param finding undefined for an expectation that is paused or has an error
 */
export function evaluate(
  { error, paused, gracePeriodMs }: Expectation,
  finding: Finding | undefined,
  { settled, shortSinceMs }: Progress,
  nowMs: number,
): Evaluation {
  const settledAs = (state: ExpectationState, reason: string, progress: Progress): Evaluation => ({
    state,
    reason,
    progress,
    graceEndsAtMs: undefined,
  });
  if (paused) return settledAs('paused', 'Paused', NO_PROGRESS);
  if (error !== undefined || finding === undefined) return settledAs('invalid', 'Invalid', NO_PROGRESS);
  if (finding === 'Satisfied')
    return settledAs('satisfied', finding, { settled: 'satisfied', shortSinceMs: undefined });
  const sinceMs = shortSinceMs ?? nowMs;
  if (settled === 'unsatisfied' || nowMs - sinceMs >= gracePeriodMs) {
    const state = finding === 'Unknown' ? 'unknown' : 'unsatisfied';
    return settledAs(state, finding, { settled: 'unsatisfied', shortSinceMs: sinceMs });
  }
  const state = settled === 'satisfied' ? 'satisfied' : 'pending';
  return {
    state,
    reason: state === 'satisfied' ? 'Satisfied' : 'Pending',
    progress: { settled, shortSinceMs: sinceMs },
    graceEndsAtMs: sinceMs + gracePeriodMs,
  };
}

const READY_STATUS: Readonly<Record<ExpectationState, Condition['status']>> = {
  satisfied: 'True',
  unsatisfied: 'False',
  invalid: 'False',
  unknown: 'Unknown',
  pending: 'Unknown',
  paused: 'Unknown',
};

/** The API server accepts up to 4,096. */
const MAX_MESSAGE_LENGTH = 2000;

export interface DesiredStatusOptions {
  /** That of the evaluated spec. */
  readonly generation: number;
  readonly evaluation: Evaluation;
  /** Undefined if the expectation is not evaluated. */
  readonly summary: TallySummary | undefined;
  readonly message: string;
  /** RFC 3339 with a precision of seconds. */
  readonly now: string;
  /** When the tunnels began to fall short, in the same form; `now` if they do not. */
  readonly shortSince: string;
}

/** Returns the status that an expectation should have, as a merge patch. */
export function desiredExpectationStatus(
  { status }: Pick<ExpectationObject, 'status'>,
  { generation, evaluation, summary, message, now, shortSince }: DesiredStatusOptions,
): ExpectationStatusPatch {
  const { state, reason } = evaluation;
  const isShort = state === 'unsatisfied' || state === 'unknown' || state === 'pending';
  const isSameState = phaseOf(stateOf(status)) === phaseOf(state) && status?.since !== undefined;
  return {
    observedGeneration: generation,
    tunnels: summary?.tunnels ?? null,
    reporters: summary?.reporters ?? null,
    unknown: summary?.unknown ?? null,
    missing: summary?.missing ?? null,
    missingNodes: summary?.missingNodes ?? null,
    since: isSameState ? status.since : isShort ? shortSince : now,
    conditions: conditionContents(state, reason, message).map((content) =>
      buildCondition(content, status?.conditions, now, generation),
    ),
  };
}

/**
 * Stalled exists only for an expectation that nothing can meet: kstatus then reports a failure instead of waiting. An
 * unsatisfied one may become satisfied at any time.
 */
function conditionContents(state: ExpectationState, reason: string, text: string): ConditionContent[] {
  const message = sanitize(text, MAX_MESSAGE_LENGTH);
  const ready = { type: 'Ready', status: READY_STATUS[state], reason, message };
  return state === 'invalid' ? [ready, { ...ready, type: 'Stalled', status: 'True' }] : [ready];
}

/** How a status differs: a condition or the generation has changed, or only counts and messages, whose write can wait. */
export type ExpectationStatusChange = 'none' | 'counts' | 'conditions';

export function expectationStatusChange(
  before: ExpectationStatus | undefined,
  desired: ExpectationStatusPatch,
): ExpectationStatusChange {
  const current = before?.conditions ?? [];
  const conditions = desired.conditions ?? [];
  const haveSameMeaning =
    before?.observedGeneration === desired.observedGeneration &&
    current.length === conditions.length &&
    conditions.every(({ type, status, reason, observedGeneration }, index) => {
      const other = current[index];
      return (
        other?.type === type &&
        other.status === status &&
        other.reason === reason &&
        other.observedGeneration === observedGeneration
      );
    });
  if (!haveSameMeaning) return 'conditions';
  const haveSameCounts =
    (['tunnels', 'reporters', 'unknown', 'missing', 'since'] as const).every(
      (field) => (before?.[field] ?? null) === desired[field],
    ) &&
    JSON.stringify(before?.missingNodes ?? null) === JSON.stringify(desired.missingNodes) &&
    conditions.every(({ message }, index) => current[index]?.message === message);
  return haveSameCounts ? 'none' : 'counts';
}

/** Returns true if two patches of a status say the same, whatever their times are. */
export function sameExpectationStatus(a: ExpectationStatusPatch, b: ExpectationStatusPatch): boolean {
  return withoutTimes(a) === withoutTimes(b);
}

function withoutTimes(status: ExpectationStatusPatch): string {
  const conditions = status.conditions?.map((condition) => ({ ...condition, lastTransitionTime: undefined }));
  return JSON.stringify({ ...status, since: undefined, conditions });
}

/** Returns the state that a status shows; undefined before the first evaluation. */
export function stateOf(status: ExpectationStatus | undefined): ExpectationState | undefined {
  const ready = findCondition(status?.conditions, 'Ready');
  if (ready === undefined) return undefined;
  if (ready.status === 'True') return 'satisfied';
  if (ready.status === 'False') return ready.reason === 'Invalid' ? 'invalid' : 'unsatisfied';
  if (ready.reason === 'Paused') return 'paused';
  // The default of the CRD shows Pending without a generation.
  if (ready.reason === 'Pending') return status?.observedGeneration === undefined ? undefined : 'pending';
  return 'unknown';
}

/** Returns the part of a state that `since` is about: the tunnels keep falling short while the reason changes. */
function phaseOf(state: ExpectationState | undefined): string | undefined {
  return state === 'unknown' || state === 'pending' ? 'unsatisfied' : state;
}
