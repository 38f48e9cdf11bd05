import { readFileSync } from 'node:fs';

/**
 * Files of the runtime, listening sockets and watches, of which 45 were measured without any reporter, and 32 connections
 * of probes and scrapes.
 */
const RESERVED_FILES = 80;

/**
 * Returns the maximum number of open files of this process; undefined if it is unlimited or unknown, as outside of
 * Linux. Node raises the soft limit to the hard one at its start.
 */
export function openFileLimit(): number | undefined {
  let text: string;
  try {
    text = readFileSync('/proc/self/limits', 'utf8');
  } catch {
    return undefined;
  }
  const [, limit] = /^Max open files\s+(\d+)/m.exec(text) ?? [];
  return limit === undefined ? undefined : Number(limit);
}

/** Numbers of connections. */
export interface ConnectionCounts {
  /** To the API server. */
  readonly api: number;
  /** Of reporters. */
  readonly reporters: number;
}

/**
 * Reduces numbers of connections so that all of them fit into the limit of open files. Beyond that limit, the kernel
 * would reset connections without a log line, those of probes included. Each number is at least 1.
 *
 * @param limit undefined: unlimited
 */
export function fitOpenFiles(limit: number | undefined, wanted: ConnectionCounts): ConnectionCounts {
  if (limit === undefined) return wanted;
  const available = Math.max(2, limit - RESERVED_FILES);
  const api = Math.min(wanted.api, Math.ceil(available / 2));
  return { api, reporters: Math.min(wanted.reporters, available - api) };
}
