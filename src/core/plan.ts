import type { LostPhase } from './expiry.ts';
import type { Known } from './ledger.ts';
import { Drift, type Row } from './row.ts';
import { sameIdentity, type Tunnel } from './tunnel.ts';

/** One write to the API that brings the rows of a tunnel closer to what they are to be. */
export type Step =
  | { readonly do: 'create'; readonly tunnel: Tunnel }
  /** Merge patch of what may change on a row that stays: labels, createdAt. */
  | { readonly do: 'patch'; readonly row: Row; readonly tunnel: Tunnel }
  | { readonly do: 'patchStatus'; readonly row: Row }
  | { readonly do: 'delete'; readonly row: Row }
  /** Status: nobody knows, as the reporter is lost. */
  | { readonly do: 'markUnknown'; readonly row: Row }
  /** Delete, because the reporter has been lost for too long. */
  | { readonly do: 'expire'; readonly row: Row };

/**
 * Compares what is known of a tunnel with the rows that stand for it and gives the next write that is due; undefined
 * when all is as it should be. Asked again after each write, it comes to an end: every step removes one difference.
 *
 * Spec is immutable but for createdAt, so another identity takes two writes: the old row is deleted, then the new one
 * created (under the same name, unless the initiator's node id changed).
 *
 * @param rows normally none or one; more when somebody made a row by hand
 */
export function nextStep(known: Known, rows: readonly Row[]): Step | undefined {
  if (known.is === 'unknown') return undefined;
  const wanted = known.is === 'present' ? known.tunnel : undefined;
  let kept: Row | undefined;
  for (const row of rows) {
    if ((row.drift & Drift.terminating) !== 0) continue;
    const stays = wanted !== undefined && (row.drift & Drift.name) === 0 && sameIdentity(row.tunnel, wanted);
    if (!stays) return { do: 'delete', row };
    kept = row;
  }
  if (wanted === undefined) return undefined;
  if (kept === undefined) return { do: 'create', tunnel: wanted };
  if ((kept.drift & Drift.labels) !== 0 || kept.tunnel.createdAt !== wanted.createdAt) {
    return { do: 'patch', row: kept, tunnel: wanted };
  }
  return (kept.drift & Drift.status) === 0 ? undefined : { do: 'patchStatus', row: kept };
}

/**
 * The next write that is due on the rows of a tunnel whose reporter is lost: at first what its last words left to do;
 * then its rows are marked, and in the end deleted, whoever made them. Nothing is created for a reporter that is gone.
 */
export function nextLostStep(known: Known, rows: readonly Row[], phase: LostPhase): Step | undefined {
  if (phase === 'lost') return nextStep(known, rows);
  const standing = rows.filter((row) => (row.drift & Drift.terminating) === 0);
  if (phase === 'expired') {
    const [row] = standing;
    return row === undefined ? undefined : { do: 'expire', row };
  }
  const [first] = standing;
  if (known.is === 'absent') return first === undefined ? undefined : { do: 'delete', row: first };
  const unmarked = standing.find((row) => (row.drift & Drift.lost) === 0);
  return unmarked === undefined ? undefined : { do: 'markUnknown', row: unmarked };
}
