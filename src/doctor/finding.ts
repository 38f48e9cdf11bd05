/** How a check ended; `skip`: it was not asked for, or the asking account may not know. */
export type Level = 'ok' | 'skip' | 'warn' | 'fail';

/** What a check found. */
export interface Finding {
  /** One word. */
  readonly check: string;
  readonly status: Level;
  /** One line: what is so, with object and value. */
  readonly message: string;
  /** What to do about it; undefined when nothing is. */
  readonly remediation?: string;
}

/** At most `limit` of many names, and how many more there are. */
export function someOf(names: readonly string[], limit = 5): string {
  const left = names.length - limit;
  return names.slice(0, limit).join(', ') + (left > 0 ? ` and ${left} more` : '');
}

/** For what could not be asked: a matter of the account's rights, or a failure. */
export function unanswered(
  check: string,
  { failure, forbidden }: { readonly failure: string; readonly forbidden: boolean },
): Finding {
  return forbidden
    ? {
        check,
        status: 'skip',
        message: `not checked: ${failure}`,
        remediation: 'run doctor with an account that has the permission',
      }
    : { check, status: 'fail', message: failure, remediation: 'fix this first, then run doctor again' };
}
