/** The hand tools as users run them: a process each. */
import { execFile } from 'node:child_process';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A Lease that looks dead is watched for 7 s; the rest takes a second. */
const TIMEOUT_MS = 40_000;

/** What a run of a hand tool came to. */
export interface CommandResult {
  /** The exit code; -1 when it was killed as it did not end. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `doctor` or `status` with these flags to its end. */
export function runCommand(
  args: readonly string[],
  program: 'src/main.ts' | 'src/kubectl-rt.ts' = 'src/main.ts',
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const env = { PATH: process.env['PATH'], HOME: '/nowhere' };
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

/** A line of `doctor -o json`. */
export interface CheckResultJson {
  readonly check: string;
  readonly status: string;
  readonly message: string;
  readonly remediation?: string;
}

/** Runs `doctor -o json` and gives what it found, with its exit code. */
export async function runDoctor(
  args: readonly string[],
): Promise<{ readonly code: number; readonly findings: readonly CheckResultJson[] }> {
  const { code, stdout, stderr } = await runCommand(['doctor', '-o', 'json', ...args]);
  if (!stdout.startsWith('{')) throw new Error(`doctor ended with ${code}: ${stderr}`);
  const { findings } = JSON.parse(stdout) as { findings: CheckResultJson[] };
  return { code, findings };
}
