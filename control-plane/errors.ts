/** The one error that is for the user, and what others say. */
import { getString } from './get-path.ts';

/** A control plane cannot be had or does not run: one line for the user, which says what was tried and what to do. */
export class ControlPlaneError extends Error {
  override readonly name = 'ControlPlaneError';
}

/** The system's code of an error, such as `ENOENT`; undefined when it has none. */
export function errorCode(error: unknown): string | undefined {
  return getString(error, 'code');
}

/** What an error says. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
