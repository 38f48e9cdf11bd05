import { pino, type Logger } from 'pino';

/** One JSON line an entry: `log.info({ reporter: 'edge/r-0' }, 'what happened')`. */
export type Log = Logger;

/** Least first; `silent` writes nothing. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
/** What is written: this level and those after it. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A log to standard output, with RFC 3339 times and level names in place of numbers. */
export function createLog(level: LogLevel): Log {
  return pino({
    level,
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label) => ({ level: label }) },
  });
}
