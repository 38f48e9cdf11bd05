import type { LostPhase } from '../core/expiry.ts';
import type { Permission } from '../core/ownership.ts';
import type { Step } from '../core/plan.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { ApiFailure } from './row-api.ts';

/**
 * May this replica write the rows of a reporter? Asked by reporter, never by tunnel, so that it costs a lookup and
 * no memory: before each write, at the last moment.
 */
export interface RowGate {
  /** True while the reporter's rows are this replica's, and it may write at all. */
  isOpen(key: string): boolean;
  /** May this write be sent now? `read`: ask again after `freshRead`. */
  permission(key: string, write: Step['do']): Permission;
  /** Reads the reporter's object anew; one read under way serves all who ask. Gives why it could not be read. */
  freshRead(key: string): Promise<ApiFailure | undefined>;
  /** How far the reporter is lost; undefined: it has a stream here. */
  phase(key: string): LostPhase | undefined;
  /** Whose rows they are; undefined for a reporter that is none of this replica's business. */
  reporter(key: string): ReporterId | undefined;
  /** A row of the reporter is not as this replica left it: somebody else may own it by now. */
  foreignRow(key: string): void;
  /** A row write is left out because the gate is closed: all rows are to be looked at when it opens. */
  skipped(key: string): void;
  /** A row of the reporter is refused by the API server, with its answer; undefined: it is not any more. */
  refused(key: string, tunnelName: string, answer: string | undefined): void;
}
