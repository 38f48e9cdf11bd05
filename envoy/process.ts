/** Real Envoys on loopback. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { killGroup, spawnGuarded, waitForExit } from '../control-plane/process-supervisor.ts';

/** An Envoy starts within a second on an idle machine. */
const START_DEADLINE_MS = 60_000;
const POLL_INTERVAL_MS = 20;

/** A running Envoy. It dies with this process. */
export interface EnvoyProcess extends AsyncDisposable {
  readonly pid: number;
  /** `host:port` of its admin interface. */
  readonly adminAddress: string;
  /** Returns what Envoy has logged so far. */
  log(): Promise<string>;
  /** Freezes the process: its connections stay open and nothing is answered. */
  pause(): void;
  resume(): void;
  /** Ends it with SIGKILL and returns when it is gone. */
  kill(): Promise<void>;
}

/**
 * Starts an Envoy with one worker and a base ID of its own. Resolves when its admin interface listens.
 *
 * @param flags further flags of Envoy
 */
export async function startEnvoy(
  envoy: string,
  bootstrap: string,
  flags: readonly string[] = [],
): Promise<EnvoyProcess> {
  const folder = await mkdtemp(join(tmpdir(), 'envoy-'));
  const path = join(folder, 'bootstrap.yaml');
  const logPath = join(folder, 'envoy.log');
  const adminPath = join(folder, 'admin');
  await writeFile(path, bootstrap);
  const logFile = openSync(logPath, 'a');
  // One worker, because the number of tunnels is per worker. The flush interval is that of the access logs.
  const args = ['--config-path', path, '--use-dynamic-base-id', '--concurrency', '1'];
  const child: ChildProcess = spawnGuarded(
    envoy,
    [
      ...args,
      '--file-flush-interval-msec',
      '100',
      '--log-level',
      'warning',
      '--admin-address-path',
      adminPath,
      ...flags,
    ],
    { cwd: folder, env: process.env, stdio: ['ignore', logFile, logFile] },
  );
  closeSync(logFile);
  const log = async (): Promise<string> => await readFile(logPath, 'utf8');
  let adminAddress = '';
  const dispose = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const untilMs = performance.now() + START_DEADLINE_MS;
    while (adminAddress === '') {
      if (child.exitCode !== null) throw new Error(`Envoy ended with code ${child.exitCode}: ${await log()}`);
      if (performance.now() > untilMs) throw new Error(`Envoy does not listen: ${await log()}`);
      await delay(POLL_INTERVAL_MS);
      adminAddress = await readFile(adminPath, 'utf8').catch(() => '');
    }
  } catch (error) {
    await dispose();
    throw error;
  }
  const { pid } = child;
  if (pid === undefined) throw new Error('Envoy has no process ID');
  return {
    pid,
    adminAddress,
    log,
    pause: () => void process.kill(pid, 'SIGSTOP'),
    resume: () => void process.kill(pid, 'SIGCONT'),
    async kill() {
      process.kill(pid, 'SIGKILL');
      await waitForExit(child);
    },
    [Symbol.asyncDispose]: dispose,
  };
}
