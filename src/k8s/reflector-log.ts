import type { Clock } from '../clock.ts';
import { ApiError, isTrustFailure, oneLine } from './api-error.ts';

/** What the reflector says; pino's logger fits. */
export interface ReflectorLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** A fault that stays is said again after this. */
const REPEAT_INTERVAL_MS = 30_000;

/** Says when something breaks and when it works again. */
export interface FaultLog {
  /** A failure: said when it is of another kind than the last, and every 30 s. @param retryMs when the next try is */
  logFailure(error: Error, retryMs: number): void;
  /** It works: said when it was said to be broken before. */
  logRecovery(): void;
}

/**
 * One line a change and not one a retry: an API server that is away for an hour would fill the log. Where it breaks and
 * works in turn, one of each in 30 s.
 */
export function createFaultLog(title: string, log: ReflectorLog, clock: Clock): FaultLog {
  let lastLogged: { kind: string; atMs: number } | undefined;
  let isFailing = false;

  return {
    logFailure(error, retryMs) {
      const consequence = error instanceof ApiError ? error.kind : 'reader';
      // A server that is not trusted is another matter than one that is away, and only a person can help there.
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
      // What a watch brought may stand in the message as it came.
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

/** What a person can do about it; undefined when it passes by itself. */
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
