import type { ReporterEntry } from './reporter-entry.ts';

/**
 * What this replica has of a reporter.
 *
 * - `connected`: its stream, and the right to write its rows.
 * - `waiting`: its stream alone: another replica owns it, or the claim is not confirmed (yet).
 * - `lost`: the right to write its rows, of which there are some, and no stream: they become Unknown, then go.
 * - `empty`: the same without rows: nothing is missing, and its object goes in time.
 */
export type ReporterConnectionState = 'connected' | 'pending' | 'disconnected' | 'idle';

/**
 * Why a tunnel that a reporter holds is no row: it broke a rule, the API server refused the row, or no policy allows it
 * (which may be meant so).
 */
export type TunnelRejectionReason = 'invalid' | 'rejected' | 'policy';

/** Figures over all reporters of this replica, for a scrape. */
export interface ReporterStats {
  readonly owned: number;
  readonly byState: Readonly<Record<ReporterConnectionState, number>>;
  readonly rejected: Readonly<Record<TunnelRejectionReason, number>>;
  /** For how long rows of some reporter have been waiting without a break; 0 when none wait but refused ones. */
  readonly backlogMs: number;
}

/** What is asked of each reporter, by its key. */
export interface ReporterStatsOptions {
  /** How many of its tunnels have a row. */
  readonly objectCount: (key: string) => number;
  /** How many of its rows wait to be written, refused ones included. */
  readonly pending: (key: string) => number;
  /** How many of its tunnels no policy allows. */
  readonly deniedCount: (key: string) => number;
}

/**
 * Counts in one pass: a few lookups a reporter, none a tunnel. It changes nothing, however often it is asked.
 */
export function collectReporterStats(
  entries: Iterable<ReporterEntry>,
  { objectCount, pending, deniedCount }: ReporterStatsOptions,
  nowMs: number,
): ReporterStats {
  const byState = { connected: 0, pending: 0, disconnected: 0, idle: 0 };
  const setAside = { invalid: 0, rejected: 0, policy: 0 };
  let owned = 0;
  let sinceMs = nowMs;
  for (const entry of entries) {
    const { key, ownership, stream } = entry;
    if (ownership.owns) owned += 1;
    if (stream !== undefined) {
      byState[ownership.owns ? 'connected' : 'pending'] += 1;
      setAside.invalid += stream.rejected;
    } else if (ownership.owns) {
      byState[objectCount(key) > 0 ? 'disconnected' : 'idle'] += 1;
    }
    const refused = entry.rejectedWrites?.size ?? 0;
    setAside.rejected += refused;
    setAside.policy += deniedCount(key);
    // What was left out as the gate closed has left the queue without a word, while refused rows still wait there.
    if (pending(key) > refused) sinceMs = Math.min(sinceMs, entry.backlogSinceMs ?? nowMs);
  }
  return { owned, byState, rejected: setAside, backlogMs: nowMs - sinceMs };
}
