/**
 * Returns the message of anything thrown, on one line in practice: the reason for an OpenSSL error, the first inner
 * message for an error that only wraps others (a failed connection to a name with two addresses). A system or library
 * code that the message does not contain is appended: `socket hang up (ECONNRESET)`.
 */
export function errorMessage(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') return errorMessage(error.errors[0]);
  if (!(error instanceof Error)) return String(error);
  const code = errorCode(error);
  const message = openSslReason(error) ?? (error.message === '' ? error.name : error.message);
  return code === undefined || message.includes(code) ? message : `${message} (${code})`;
}

/** Returns anything thrown as an Error: itself if it is one. */
export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(errorMessage(error));
}

/** Returns the code of a system or library error, such as `ECONNREFUSED`; undefined if there is none. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** Returns OpenSSL's own reason, without the place in its source code that the message contains. */
function openSslReason(error: Error): string | undefined {
  return 'reason' in error && 'library' in error && typeof error.reason === 'string'
    ? error.reason
    : undefined;
}
