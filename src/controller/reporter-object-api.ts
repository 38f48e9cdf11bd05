import type { ReporterObject, ReporterStatusPatch } from '../core/reporter-object.ts';

/** What the controller needs of the API server about reporters. Every call has its own deadline, and throws an `ApiFailure`. */
export interface ReporterObjectApi {
  /** Yields the object as stored, its status the CRD's default. */
  create(name: string, spec: ReporterObject['spec']): Promise<ReporterObject>;
  /** Merge patch of the status under the precondition that the object is still at this version. */
  patchStatus(name: string, resourceVersion: string, status: ReporterStatusPatch): Promise<ReporterObject>;
  /** The object as it stands now, consistent with every write answered before; undefined when there is none. */
  read(name: string): Promise<ReporterObject | undefined>;
  /**
   * Deletes under the precondition that it is still this object at this version. Yields the object while it still stands,
   * waiting for its finalizers; undefined when it is gone.
   */
  delete(name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined>;
}
