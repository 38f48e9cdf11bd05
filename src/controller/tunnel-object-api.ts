import type { ApiErrorKind } from '../core/kubernetes.ts';
import type {
  ObservedTunnel,
  TunnelManifest,
  TunnelObject,
  TunnelObjectStatus,
} from '../core/tunnel-object.ts';

/** What the controller needs of the API server. Every call has its own deadline, and throws an `ApiFailure`. */
export interface TunnelObjectApi {
  /** Yields the row as stored. */
  create(manifest: TunnelManifest): Promise<TunnelObject>;
  /** Merge patch under the precondition that the row is still at `row.resourceVersion`. Yields the row as stored. */
  patch(object: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject>;
  /** As patch, for the whole status. */
  patchStatus(object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject>;
  /**
   * Deletes under the precondition that it is still this row, at this version. Yields the row while it still stands,
   * waiting for its finalizers; undefined when it is gone.
   */
  delete(object: ObservedTunnel): Promise<TunnelObject | undefined>;
  /** The row of a name as it stands now, not from a cache; undefined when there is none. */
  read(name: string): Promise<TunnelObject | undefined>;
}

/** What may change on a row that stays. */
export interface TunnelObjectPatch {
  readonly labels: Readonly<Record<string, string>>;
  /** Null removes the field. */
  readonly createdAt: string | null;
}

/** A failed call. Only what follows from it counts here. */
export interface ApiFailure extends Error {
  readonly kind: ApiErrorKind;
  /** HTTP status; undefined when nothing answered. */
  readonly status: number | undefined;
  /** How long the API server asks to wait; undefined when it does not. */
  readonly retryAfterMs: number | undefined;
}

/** True for what a call of `RowApi` or `ReporterApi` throws; everything else is a fault of this program. */
export function isApiFailure(error: unknown): error is ApiFailure {
  return error instanceof Error && 'kind' in error;
}
