import { formatDuration } from '../duration.ts';
import { reporterIdentity, type ReporterIdentity } from '../grpc/reporter-identity.ts';
import { dialReportingService } from '../grpc/reporting-client.ts';
import { parseCommand, type CommandOptions } from './command-options.ts';
import { FLEET_DEFAULTS } from './fleet-options.ts';
import { createFleet, type Fleet } from './fleet.ts';
import { progressLine, summary, disconnectCause } from './progress.ts';

/** Where `simulate` speaks, and how it is told to end. */
export interface CommandTerminal {
  /** The result: summary or help. */
  out(text: string): void;
  /** Progress and problems. */
  err(text: string): void;
  /** Width of the terminal behind `err`; undefined when it is none. */
  readonly columns: () => number | undefined;
  /** Calls back once when the user or the system wants an end. The answer stops listening. */
  onInterrupt(callback: () => void): () => void;
}

/** A terminal line is rewritten this often; elsewhere a new line is written at the slower pace. */
const REWRITE_INTERVAL_MS = 250;
const LINE_INTERVAL_MS = 5000;
/** 2,000 reporters in 4 s: all at once would overflow the listen backlog of 511, and wait a second for the next SYN. */
const RAMP_UP_MS_PER_REPORTER = 2;

/**
 * `simulate`: runs a fleet of reporters until the duration is over or it is interrupted.
 * @param argv The arguments after `simulate`.
 * @returns The exit code: 0, 1 when the fleet was not well at the end, 2 for wrong arguments.
 */
export async function runSimulate(argv: readonly string[], terminal = processTerminal): Promise<number> {
  const parsed = parseCommand(argv);
  if ('help' in parsed) {
    terminal.out(parsed.help);
    return 0;
  }
  if ('errors' in parsed) {
    for (const error of parsed.errors) terminal.err(`simulate: ${error}\n`);
    return 2;
  }
  return await runFleet(parsed.options, terminal);
}

async function runFleet(options: CommandOptions, terminal: CommandTerminal): Promise<number> {
  const startedMs = performance.now();
  let identity: ReporterIdentity | undefined;
  try {
    identity = reporterIdentity(options.identity);
  } catch (error) {
    terminal.err(`simulate: ${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const fleet = createFleet(
    {
      ...options,
      churnPerSecond: options.churn,
      flapsPerSecond: options.flap,
      rampUpMs: Math.min(options.intervalMs, options.reporters * RAMP_UP_MS_PER_REPORTER),
    },
    identity === undefined ? {} : { dial: (address) => dialReportingService({ address, identity }) },
  );
  // Listens before anything is open, so that an early Ctrl-C is no abrupt end.
  const end = waitForEnd(options.durationMs, terminal);
  const progress = startProgress(fleet, options.address, terminal);
  await fleet.start();
  await end;
  progress.stop();

  // Before the end of the fleet, which disconnects everybody.
  const statistics = fleet.statistics();
  const size = { reporters: fleet.reporters.length, tunnels: fleet.tunnelCount() };
  await fleet.stop();
  terminal.out(summary(size, statistics, performance.now() - startedMs));
  return statistics.connected === size.reporters && statistics.outOfOrderAcks === 0 && statistics.nacks === 0
    ? 0
    : 1;
}

/** Resolves when the time is over (0: never) or at the first interrupt. */
function waitForEnd(durationMs: number, terminal: CommandTerminal): Promise<void> {
  return new Promise((resolve) => {
    const timer = durationMs > 0 ? setTimeout(end, durationMs) : undefined;
    const stopListening = terminal.onInterrupt(end);
    function end(): void {
      clearTimeout(timer);
      stopListening();
      resolve();
    }
  });
}

/** Keeps the line of progress, and says once when the service is out of reach and once when it is back. */
function startProgress(fleet: Fleet, address: string, terminal: CommandTerminal): { stop(): void } {
  const isTerminal = terminal.columns() !== undefined;
  let isUnreachable = false;

  /** A line that stays; the line of progress, if any, is written anew below it. */
  function printLine(line: string): void {
    terminal.err(isTerminal ? `\r\u001B[2K${line}\n` : `${line}\n`);
  }

  function checkConnection(): void {
    const statistics = fleet.statistics();
    if (statistics.connected > 0 && isUnreachable) {
      isUnreachable = false;
      printLine(`simulate: connected to ${address}`);
    } else if (statistics.connected === 0 && statistics.lastDisconnect !== undefined && !isUnreachable) {
      isUnreachable = true;
      const retry = formatDuration(FLEET_DEFAULTS.connectRetryIntervalMs);
      printLine(
        `simulate: cannot report to ${address} (${disconnectCause(statistics)}); each reporter retries every ${retry}`,
      );
    }
  }

  function showProgress(): void {
    const size = { reporters: fleet.reporters.length, tunnels: fleet.tunnelCount() };
    const line = progressLine(size, fleet.statistics());
    terminal.err(isTerminal ? `\r\u001B[2K${line.slice(0, (terminal.columns() ?? 80) - 1)}` : `${line}\n`);
  }

  const connectionTimer = setInterval(checkConnection, REWRITE_INTERVAL_MS);
  const progressTimer = setInterval(showProgress, isTerminal ? REWRITE_INTERVAL_MS : LINE_INTERVAL_MS);
  return {
    stop() {
      // Once more, so that a short run also tells why nothing worked.
      clearInterval(connectionTimer);
      clearInterval(progressTimer);
      checkConnection();
      if (isTerminal) terminal.err('\r\u001B[2K');
    },
  };
}

/** The process's own. A second signal ends the process at once, as nobody listens any more. */
const processTerminal: CommandTerminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  columns: () => (process.stderr.isTTY ? process.stderr.columns : undefined),
  onInterrupt(callback) {
    function stopListening(): void {
      process.off('SIGINT', callback);
      process.off('SIGTERM', callback);
    }
    process.once('SIGINT', callback);
    process.once('SIGTERM', callback);
    return stopListening;
  },
};
