/** How a check ended; `skip`: it was not asked for, or the asking account may not know. */
export type CheckStatus = 'ok' | 'skip' | 'warn' | 'fail';

/** What a check found. */
export interface CheckResult {
  /** One word. */
  readonly check: string;
  readonly status: CheckStatus;
  /** One line: what is so, with object and value. */
  readonly message: string;
  /** What to do about it; undefined when nothing is. */
  readonly remediation?: string;
}

/** At most `limit` of many names, and how many more there are. */
export function truncateList(names: readonly string[], limit = 5): string {
  const remaining = names.length - limit;
  return names.slice(0, limit).join(', ') + (remaining > 0 ? ` and ${remaining} more` : '');
}

/** For what could not be asked: a matter of the account's rights, or a failure. */
export function unavailable(
  check: string,
  { failure, forbidden }: { readonly failure: string; readonly forbidden: boolean },
): CheckResult {
  return forbidden
    ? {
        check,
        status: 'skip',
        message: `not checked: ${failure}`,
        remediation: 'run doctor with an account that has the permission',
      }
    : { check, status: 'fail', message: failure, remediation: 'fix this first, then run doctor again' };
}
