import type { Clock } from '../clock.ts';
import { ApiError, isTrustFailure, oneLine } from './api-error.ts';

/** The methods of a logger that a reflector uses; compatible with pino. */
export interface ReflectorLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** Interval at which a persistent failure is logged again. */
const REPEAT_INTERVAL_MS = 30_000;

/** Logs failures and recoveries of a reflector. */
export interface FaultLog {
  /**
   * Logs a failure.
   * @param retryMs delay until the next attempt
   */
  logFailure(error: Error, retryMs: number): void;
  /** Logs the recovery if the failure was logged. */
  logRecovery(): void;
}

/**
 * Creates a log with one line per change instead of one per retry: an API server that is down for an hour would fill
 * the log. An API server that keeps failing and recovering causes one line of each per 30 s.
 */
export function createFaultLog(title: string, log: ReflectorLog, clock: Clock): FaultLog {
  let lastLogged: { kind: string; atMs: number } | undefined;
  let isFailing = false;

  return {
    logFailure(error, retryMs) {
      const consequence = error instanceof ApiError ? error.kind : 'reader';
      // An untrusted server differs from an unreachable one, and only an administrator can fix it.
      const kind = isTrustFailure(error.cause) ? 'trust' : consequence;
      const nowMs = clock.monotonicMs();
      if (
        lastLogged !== undefined &&
        lastLogged.kind === kind &&
        nowMs - lastLogged.atMs < REPEAT_INTERVAL_MS
      )
        return;
      lastLogged = { kind, atMs: nowMs };
      isFailing = true;
      const retry = `in ${Math.ceil(retryMs / 100) / 10}s`;
      // The message may contain unfiltered data of a watch.
      const message = oneLine(error.message, 300);
      const hint = hintFor(error);
      const fields = { resource: title, consequence, error: message, retry };
      log.warn(hint === undefined ? fields : { ...fields, hint }, 'list or watch failed; retrying');
    },
    logRecovery() {
      if (!isFailing) return;
      isFailing = false;
      log.info({ resource: title }, 'list and watch recovered');
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
