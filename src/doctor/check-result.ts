/** Outcome of a check; `skip`: not requested, or the account lacks a permission that the check needs. */
export type CheckStatus = 'ok' | 'skip' | 'warn' | 'fail';

/** One result of a check. */
export interface CheckResult {
  /** Name of the check, one word. */
  readonly check: string;
  readonly status: CheckStatus;
  /** One line that names the object and the value. */
  readonly message: string;
  /** What to do; undefined if nothing needs to be done. */
  readonly remediation?: string;
}

/** Returns the result of a check whose input could not be fetched: `skip` if the account may not read it. */
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

/** Formats results as text: one line per result, the remediation below it, and the totals in the last line. */
export function formatResults(results: readonly CheckResult[]): string {
  const count = (expected: CheckStatus): number => results.filter(({ status }) => status === expected).length;
  const totals = `${count('fail')} failed, ${count('warn')} warned, ${count('ok')} ok, ${count('skip')} not checked\n`;
  return results.map(formatResult).join('') + totals;
}

function formatResult({ status, check, message, remediation }: CheckResult): string {
  const line = `${status.padEnd(4)}  ${check.padEnd(12)}  ${message}\n`;
  return remediation === undefined ? line : `${line}${' '.repeat(20)}→ ${remediation}\n`;
}
