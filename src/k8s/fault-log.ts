import type { Clock } from '../clock.ts';
import { createLogThrottle } from '../log-throttle.ts';
import { ApiError, isTrustFailure, oneLine } from './api-error.ts';

/** The methods of a logger that are used; compatible with pino. */
export interface FaultLogger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** Interval at which a persistent failure is logged again. */
const REPEAT_INTERVAL_MS = 30_000;

/** Logs failures and recoveries of requests that are retried until they succeed. */
export interface FaultLog {
  /**
   * Logs a failure.
   *
   * @param retry when the next attempt is made, for example `in 1.5s`
   * @param level default `warn`; `debug` for a failure that is expected and whose recovery is not worth a line
   */
  logFailure(error: Error, retry: string, level?: 'debug' | 'warn'): void;
  /** Logs the recovery if the failure was logged as a warning. */
  logRecovery(): void;
}

export interface FaultLogOptions {
  /** Fields of each line. */
  readonly fields: object;
  /** The message of a failure. */
  readonly failed: string;
  /** The message of the recovery. */
  readonly recovered: string;
  readonly log: FaultLogger;
  readonly clock: Clock;
}

/**
 * Creates a log with one line per kind of failure and 30 s instead of one per retry: an API server that is down for an
 * hour would fill the log.
 */
export function createFaultLog({
  fields: context,
  failed,
  recovered,
  log,
  clock,
}: FaultLogOptions): FaultLog {
  const throttle = createLogThrottle(clock, REPEAT_INTERVAL_MS);
  let isFailing = false;

  return {
    logFailure(error, retry, level = 'warn') {
      const errorKind = error instanceof ApiError ? error.kind : 'reader';
      const hint = hintFor(error);
      const fields = {
        ...context,
        errorKind,
        // The message may contain unfiltered data of a watch.
        error: oneLine(error.message, 300),
        retry,
        ...(hint === undefined ? {} : { hint }),
      };
      if (level === 'debug') {
        log.debug(fields, failed);
        return;
      }
      // An untrusted server differs from an unreachable one, and only an administrator can fix it.
      throttle(isTrustFailure(error.cause) ? 'trust' : errorKind, (suppressed) => {
        isFailing = true;
        log.warn({ ...fields, ...suppressed }, failed);
      });
    },
    logRecovery() {
      if (!isFailing) return;
      isFailing = false;
      log.info(context, recovered);
    },
  };
}

/** Returns how to fix the failure; undefined if it is expected to go away. */
function hintFor(error: Error): string | undefined {
  if (!(error instanceof ApiError)) return undefined;
  switch (error.kind) {
    case 'no_kind_match':
      return 'install the CRDs: kubectl apply -f crds/';
    case 'rejected':
      return error.status === 403 ? 'grant the RBAC permissions to the ServiceAccount' : undefined;
    case 'unauthorized':
      return 'check the credentials';
    case 'unexpected_response':
      return 'check that the address is that of the API server';
    case 'unavailable':
      return isTrustFailure(error.cause) ? 'check the CA and the certificates; they are reloaded' : undefined;
    case 'conflict':
    case 'already_exists':
    case 'not_found':
    case 'expired':
    case 'resource_version_too_large':
    case 'throttled':
    case 'namespace_not_found':
    case 'terminating':
    case 'cancelled':
      return undefined;
  }
}
