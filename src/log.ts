import { pino, type Logger } from 'pino';
import { createLogStream } from './log-stream.ts';

/** A structured log with one JSON line per entry: `log.info({ reporter: 'edge/r-0' }, 'message')`. */
export type Log = Logger;

/** Log levels in ascending severity; `silent` disables the log. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
/** The minimum severity of logged entries. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * Creates a log to standard output, with RFC 3339 times and with names instead of numbers for levels. Logging never
 * throws, see `createLogStream`.
 *
 * @param program name of the program, for errors
 */
export function createLog(level: LogLevel, program: string): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    createLogStream(program),
  );
}
