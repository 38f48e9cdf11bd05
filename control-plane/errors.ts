/** The error that is reported to the user, and access to the fields of other errors. */
import { getString } from './get-path.ts';

/** The control plane cannot be provided or does not run. The message is one line that names the attempts and a remedy. */
export class ControlPlaneError extends Error {
  override readonly name = 'ControlPlaneError';
}

/** Returns the system error code, such as `ENOENT`, or undefined if the error has none. */
export function errorCode(error: unknown): string | undefined {
  return getString(error, 'code');
}

/** Returns the message of an error. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
