import { processTerminal, type Terminal } from '../cli/terminal.ts';
import { formatDuration } from '../flag-values.ts';
import { errorMessage } from '../error-message.ts';
import { EXIT_FAILURE, EXIT_OK, EXIT_USAGE, endWithUsage } from '../flags.ts';
import { reporterIdentity, type ReporterIdentity } from '../grpc/reporter-identity.ts';
import { dialReportingService } from '../grpc/reporting-client.ts';
import { parseCommand, type CommandOptions } from './command-options.ts';
import { createFleet, FLEET_DEFAULTS, type Fleet } from './fleet.ts';
import { disconnectCause, formatProgress, formatSummary } from './progress.ts';

/** A terminal line is rewritten at the first interval; without a terminal, a line is printed at the second one. */
const REWRITE_INTERVAL_MS = 250;
const LINE_INTERVAL_MS = 5000;
/** 2,000 reporters start in 4 s. Starting them at once would overflow the listen backlog of 511 and delay SYNs by 1 s. */
const RAMP_UP_MS_PER_REPORTER = 2;

/**
 * Runs the command `simulate`: a fleet of reporters, until the duration has passed or the command is interrupted.
 *
 * @param argv the arguments after `simulate`
 * @returns the exit code: 0; 1 if the fleet was unhealthy at the end; 2 for an invalid flag, value or file
 */
export async function runSimulate(argv: readonly string[], terminal = processTerminal()): Promise<number> {
  const parsed = parseCommand(argv);
  if (!('options' in parsed)) return endWithUsage('simulate', parsed, terminal);
  return await runFleet(parsed.options, terminal);
}

async function runFleet(options: CommandOptions, terminal: Terminal): Promise<number> {
  const startedMs = performance.now();
  let identity: ReporterIdentity | undefined;
  try {
    identity = reporterIdentity(options.identity);
  } catch (error) {
    terminal.err(`simulate: ${errorMessage(error)}\n`);
    return EXIT_USAGE;
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
  // Created before any connection, so that an early Ctrl-C also stops the fleet in an orderly way.
  const end = waitForEnd(options.durationMs, terminal.interrupted);
  const progress = startProgress(fleet, options.address, terminal);
  await fleet.start();
  await end;
  progress.stop();

  // Taken before the fleet stops, which disconnects all reporters.
  const statistics = fleet.statistics();
  const size = { reporters: fleet.reporters.length, tunnels: fleet.tunnelCount() };
  await fleet.stop();
  terminal.out(formatSummary(size, statistics, performance.now() - startedMs));
  return statistics.connected === size.reporters && statistics.outOfOrderAcks === 0 && statistics.nacks === 0
    ? EXIT_OK
    : EXIT_FAILURE;
}

/** Resolves after the duration (0: never), or when the command is interrupted. */
function waitForEnd(durationMs: number, interrupted: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = durationMs > 0 ? setTimeout(resolve, durationMs) : undefined;
    interrupted.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Shows progress, and prints a line when the service becomes unreachable and when it is reachable again. */
function startProgress(fleet: Fleet, address: string, terminal: Terminal): { stop(): void } {
  const isTerminal = terminal.errColumns() !== undefined;
  let isUnreachable = false;

  /** Prints a permanent line; on a terminal, it replaces the progress, which is printed again below it. */
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
    const line = formatProgress(size, fleet.statistics());
    terminal.err(isTerminal ? `\r\u001B[2K${line.slice(0, (terminal.errColumns() ?? 80) - 1)}` : `${line}\n`);
  }

  const connectionTimer = setInterval(checkConnection, REWRITE_INTERVAL_MS);
  const progressTimer = setInterval(showProgress, isTerminal ? REWRITE_INTERVAL_MS : LINE_INTERVAL_MS);
  return {
    stop() {
      clearInterval(connectionTimer);
      clearInterval(progressTimer);
      // A final check, so that a short run also shows why the service is unreachable.
      checkConnection();
      if (isTerminal) terminal.err('\r\u001B[2K');
    },
  };
}
