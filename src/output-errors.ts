import { errorCode, errorMessage } from './error-message.ts';
import { EXIT_FAILURE } from './flags.ts';

/**
 * Handles errors of standard output and standard error, which Node otherwise reports with a stack trace. If the reader
 * has closed the pipe (`kubectl rt status | head -1`), the remaining output is discarded, and the exit code is that of
 * the command. Any other error, such as a full disk, ends the process with one line and exit code 1.
 *
 * @param program name in the line
 */
export function handleOutputErrors(program: string): void {
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', (error) => {
    if (errorCode(error) === 'EPIPE') return;
    process.stderr.write(`${program}: cannot write output: ${errorMessage(error)}\n`);
    process.exit(EXIT_FAILURE);
  });
}
