/** Real Envoys on loopback that run the bootstrap files in `examples/`. */
import type { ChildProcess } from 'node:child_process';
import { openSync, closeSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { killGroup, spawnGuarded, waitForExit } from '../../control-plane/process-supervisor.ts';
import { run, type RunResult } from '../../control-plane/run.ts';
import { eventually } from './eventually.ts';

const EXAMPLES = join(import.meta.dirname, '../../examples');
/** Envoy validates a bootstrap within a second on an idle machine. */
const VALIDATE_TIMEOUT_MS = 60_000;

/** What a test substitutes in a shipped bootstrap. Everything else runs as shipped. */
export interface BootstrapSubstitutions {
  /** `address:port` in the file → port on 127.0.0.1. Each address in the file must be listed. */
  readonly ports: Readonly<Record<string, number>>;
  /** Path in the file → path on this machine. Each certificate, key and log in the file must be listed. */
  readonly files?: Readonly<Record<string, string>>;
  /** Removes `reporter_config`, which only a contrib build knows. */
  readonly withoutReporter?: boolean;
}

/** Returns the YAML of a file in `examples/` with its addresses, ports and certificates substituted. */
export async function substituteExample(name: string, options: BootstrapSubstitutions): Promise<string> {
  const bootstrap: unknown = parse(await readFile(join(EXAMPLES, name), 'utf8'));
  substitute(bootstrap, options);
  return stringify(bootstrap, { aliasDuplicateObjects: false });
}

function substitute(value: unknown, options: BootstrapSubstitutions): void {
  if (typeof value !== 'object' || value === null) return;
  const object = value as Record<string, unknown>;
  const { address, port_value: port } = object;
  if (typeof address === 'string' && typeof port === 'number' && !address.startsWith('rc://')) {
    object['port_value'] = lookUp(options.ports, `${address}:${port}`, 'address');
    object['address'] = '127.0.0.1';
  }
  for (const key of ['filename', 'path']) {
    const file = object[key];
    if (typeof file === 'string') object[key] = lookUp(options.files ?? {}, file, 'file');
  }
  if (options.withoutReporter === true) delete object['reporter_config'];
  for (const child of Object.values(object)) substitute(child, options);
}

function lookUp<T>(substitutions: Readonly<Record<string, T>>, key: string, what: string): T {
  const found = substitutions[key];
  if (found === undefined)
    throw new Error(`the example contains the ${what} ${key}, which the test does not substitute`);
  return found;
}

/** Runs `envoy --mode validate` over a bootstrap. */
export async function validateBootstrap(envoy: string, bootstrap: string): Promise<RunResult> {
  const folder = await mkdtemp(join(tmpdir(), 'envoy-'));
  try {
    const path = join(folder, 'bootstrap.yaml');
    await writeFile(path, bootstrap);
    const args = ['--mode', 'validate', '--config-path', path, '--use-dynamic-base-id'];
    return await run(envoy, args, { cwd: folder, env: process.env, timeoutMs: VALIDATE_TIMEOUT_MS });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

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

/** Starts an Envoy with one worker and a base ID of its own. Resolves when its admin interface listens. */
export async function startEnvoy(envoy: string, bootstrap: string): Promise<EnvoyProcess> {
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
    await eventually('Envoy listens on its admin address', async () => {
      if (child.exitCode !== null) throw new Error(`Envoy ended with code ${child.exitCode}: ${await log()}`);
      adminAddress = await readFile(adminPath, 'utf8').catch(() => '');
      return adminAddress !== '';
    });
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
