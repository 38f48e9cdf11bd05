import type { ReporterManifest, ReporterObject, ReporterStatusPatch } from '../core/reporter-object.ts';
import type {
  ObservedSlice,
  SliceManifest,
  SliceObject,
  SlicePatch,
  SliceStatusPatch,
} from '../core/slice-object.ts';
import type {
  ObservedTunnel,
  TunnelManifest,
  TunnelObject,
  TunnelObjectPatch,
  TunnelObjectStatus,
} from '../core/tunnel-object.ts';

/**
 * Calls on ReverseTunnel objects; `createTunnelApi` in `src/k8s/resources.ts` implements them. Each call has its own
 * timeout and throws an `ApiFailure`.
 */
export interface TunnelObjectApi {
  /** Returns the object as stored. */
  create(manifest: TunnelManifest): Promise<TunnelObject>;
  /** Sends a merge patch with the precondition `object.resourceVersion`. Returns the object as stored. */
  patch(object: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject>;
  /** Replaces the whole status, with the same precondition. */
  patchStatus(object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject>;
  /**
   * Deletes with the object's uid and resourceVersion as preconditions. Returns the object while its finalizers keep it,
   * undefined once it is gone.
   */
  delete(object: ObservedTunnel): Promise<TunnelObject | undefined>;
  /** Reads an object from the API server, not from a cache; undefined if it does not exist. */
  read(name: string): Promise<TunnelObject | undefined>;
}

/**
 * Calls on ReverseTunnelSlice objects; `createSliceApi` in `src/k8s/resources.ts` implements them. Each call has its own
 * timeout and throws an `ApiFailure`.
 */
export interface SliceObjectApi {
  /** Returns the slice as stored. */
  create(manifest: SliceManifest): Promise<SliceObject>;
  /** Replaces the entries, with the precondition `slice.resourceVersion`. Returns the slice as stored. */
  patch(slice: ObservedSlice, change: SlicePatch): Promise<SliceObject>;
  /** Replaces the whole status, with the same precondition. */
  patchStatus(slice: ObservedSlice, status: SliceStatusPatch): Promise<SliceObject>;
  /** As for `TunnelObjectApi`. */
  delete(slice: ObservedSlice): Promise<SliceObject | undefined>;
  /** Reads a slice from the API server, not from a cache; undefined if it does not exist. */
  read(name: string): Promise<SliceObject | undefined>;
}

/**
 * Calls on ReverseTunnelReporter objects; `createReporterApi` in `src/k8s/resources.ts` implements them. Each call has
 * its own timeout and throws an `ApiFailure`.
 */
export interface ReporterObjectApi {
  /** Returns the object as stored, with the default status of the CRD. */
  create(manifest: ReporterManifest): Promise<ReporterObject>;
  /** Sends a merge patch of the status with `resourceVersion` as precondition. */
  patchStatus(name: string, resourceVersion: string, status: ReporterStatusPatch): Promise<ReporterObject>;
  /** Reads the object, consistent with every write answered before; undefined if it does not exist. */
  read(name: string): Promise<ReporterObject | undefined>;
  /**
   * Deletes with uid and resourceVersion as preconditions. Returns the object while its finalizers keep it, undefined
   * once it is gone.
   */
  delete(name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined>;
}
