import type { ReporterEntry } from './reporter-entry.ts';

/**
 * What this replica has of a reporter.
 *
 * - `connected`: its stream, and the right to write its rows.
 * - `waiting`: its stream alone: another replica owns it, or the claim is not confirmed (yet).
 * - `lost`: the right to write its rows, of which there are some, and no stream: they become Unknown, then go.
 * - `empty`: the same without rows: nothing is missing, and its object goes in time.
 */
export type ReporterState = 'connected' | 'waiting' | 'lost' | 'empty';

/** Why a tunnel that a reporter holds is no row: it broke a rule, or the API server refused the row. */
export type SetAsideReason = 'invalid' | 'refused';

/** Figures over all reporters of this replica, for a scrape. */
export interface ReporterFigures {
  readonly owned: number;
  readonly byState: Readonly<Record<ReporterState, number>>;
  readonly setAside: Readonly<Record<SetAsideReason, number>>;
  /** For how long rows of some reporter have been waiting without a break; 0 when none wait. */
  readonly backlogMs: number;
}

/** Counts in one pass: a few lookups a reporter, none a tunnel. */
export function reporterFigures(
  entries: Iterable<ReporterEntry>,
  rowCount: (key: string) => number,
  pending: (key: string) => number,
  nowMs: number,
): ReporterFigures {
  const byState = { connected: 0, waiting: 0, lost: 0, empty: 0 };
  const setAside = { invalid: 0, refused: 0 };
  let owned = 0;
  let sinceMs = nowMs;
  for (const { key, ownership, stream, refused, backlogSinceMs } of entries) {
    if (ownership.owns) owned += 1;
    if (stream !== undefined) {
      byState[ownership.owns ? 'connected' : 'waiting'] += 1;
      setAside.invalid += stream.rejected;
    } else if (ownership.owns) {
      byState[rowCount(key) > 0 ? 'lost' : 'empty'] += 1;
    }
    setAside.refused += refused?.size ?? 0;
    if (backlogSinceMs !== undefined && pending(key) > 0) sinceMs = Math.min(sinceMs, backlogSinceMs);
  }
  return { owned, byState, setAside, backlogMs: nowMs - sinceMs };
}
