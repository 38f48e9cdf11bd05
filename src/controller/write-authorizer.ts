import type { DisconnectPhase } from '../core/grace-timer.ts';
import type { WritePermission } from '../core/ownership.ts';
import type { TunnelAction } from '../core/plan.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { ApiFailure } from './tunnel-object-api.ts';

/**
 * May this replica write the rows of a reporter? Asked by reporter, never by tunnel, so that it costs a lookup and
 * no memory: before each write, at the last moment.
 */
export interface WriteAuthorizer {
  /** True while the reporter's rows are this replica's, and it may write at all. */
  canWrite(key: string): boolean;
  /** May this write be sent now? `read`: ask again after `freshRead`. */
  authorize(key: string, write: TunnelAction['type']): WritePermission;
  /** Reads the reporter's object anew; one read under way serves all who ask. Gives why it could not be read. */
  liveRead(key: string): Promise<ApiFailure | undefined>;
  /** How far the reporter is lost; undefined: it has a stream here. */
  phase(key: string): DisconnectPhase | undefined;
  /** Whose rows they are; undefined for a reporter that is none of this replica's business. */
  reporter(key: string): ReporterId | undefined;
  /** A row of the reporter is not as this replica left it: somebody else may own it by now. */
  externalChange(key: string): void;
  /** A row write is left out because the gate is closed: all rows are to be looked at when it opens. */
  writeSkipped(key: string): void;
  /** A row of the reporter is refused by the API server, with its answer; undefined: it is not any more. */
  writeRejected(key: string, tunnelName: string, answer: string | undefined): void;
}
