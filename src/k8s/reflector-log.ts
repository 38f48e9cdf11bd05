import type { Clock } from '../clock.ts';
import { ApiError, isTrustFailure, oneLine } from './api-error.ts';

/** What the reflector says; pino's logger fits. */
export interface ReflectorLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** A fault that stays is said again after this. */
const REPEAT_MS = 30_000;

/** Says when something breaks and when it works again. */
export interface FaultLog {
  /** A failure: said when it is of another kind than the last, and every 30 s. @param retryMs when the next try is */
  broken(error: Error, retryMs: number): void;
  /** It works: said when it was said to be broken before. */
  working(): void;
}

/**
 * One line a change and not one a retry: an API server that is away for an hour would fill the log. Where it breaks and
 * works in turn, one of each in 30 s.
 */
export function createFaultLog(title: string, log: ReflectorLog, clock: Clock): FaultLog {
  let said: { kind: string; atMs: number } | undefined;
  let isBroken = false;

  return {
    broken(error, retryMs) {
      const consequence = error instanceof ApiError ? error.consequence : 'reader';
      // A server that is not trusted is another matter than one that is away, and only a person can help there.
      const kind = isTrustFailure(error.cause) ? 'trust' : consequence;
      const nowMs = clock.monotonicMs();
      if (said !== undefined && said.kind === kind && nowMs - said.atMs < REPEAT_MS) return;
      said = { kind, atMs: nowMs };
      isBroken = true;
      const next = `tried again in ${Math.ceil(retryMs / 100) / 10} s`;
      // What a watch brought may stand in the message as it came.
      const message = `${oneLine(error.message, 300)}${advice(error)}`;
      log.warn({ resource: title, consequence, next }, message);
    },
    working() {
      if (!isBroken) return;
      isBroken = false;
      log.info({ resource: title }, `watch ${title}: works again`);
    },
  };
}

/** What a person can do about it; empty when it passes by itself. */
function advice(error: Error): string {
  if (!(error instanceof ApiError)) return '';
  switch (error.consequence) {
    case 'missing-kind':
      return ' (install the CRDs: kubectl apply -f crds/)';
    case 'refused':
      return error.status === 403 ? ' (give the service account the RBAC rules for it)' : '';
    case 'unauthorized':
      return ' (check the credentials)';
    case 'malformed':
      return ' (is the address that of the API server?)';
    case 'unavailable':
      return isTrustFailure(error.cause) ? ' (check the CA and the certificates; they are read again)' : '';
    case 'conflict':
    case 'already-exists':
    case 'gone':
    case 'expired':
    case 'version-ahead':
    case 'throttled':
    case 'missing-namespace':
    case 'terminating':
    case 'cancelled':
      return '';
  }
}
