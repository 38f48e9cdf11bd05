/** CLI commands as users run them, in processes of their own. */
import { execFile } from 'node:child_process';
import { COMPILE_CACHE } from './compile-cache.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A Lease that seems to have expired is observed for 7 s; everything else takes a second, or longer on a busy machine. */
const TIMEOUT_MS = 100_000;

export interface CommandResult {
  /** The exit code; -1 when the command was killed after the timeout. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export function runCommand(
  args: readonly string[],
  program: 'src/main.ts' | 'src/kubectl-rt.ts' = 'src/main.ts',
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const env = { PATH: process.env['PATH'], HOME: '/nowhere', ...COMPILE_CACHE };
    execFile(
      process.execPath,
      [program, ...args],
      { cwd: ROOT, env, timeout: TIMEOUT_MS },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ code, stdout, stderr });
      },
    );
  });
}

export interface CheckResultJson {
  readonly check: string;
  readonly status: string;
  readonly message: string;
  readonly remediation?: string;
}

/** Runs `doctor -o json` and returns its findings and its exit code. */
export async function runDoctor(
  args: readonly string[],
): Promise<{ readonly code: number; readonly findings: readonly CheckResultJson[] }> {
  const { code, stdout, stderr } = await runCommand(['doctor', '-o', 'json', ...args]);
  if (!stdout.startsWith('{')) throw new Error(`doctor exited with code ${code}: ${stderr}`);
  const { findings } = JSON.parse(stdout) as { findings: CheckResultJson[] };
  return { code, findings };
}
