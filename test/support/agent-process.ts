/** The agent as users run it: a process of its own. */
import { startServing } from './operator-process.ts';

export type AgentProcess = Awaited<ReturnType<typeof startAgent>>;

/**
 * Starts an agent. Resolves when it serves; it may not be ready by then.
 *
 * @param program flags and program for Node; by default, the source, so that tests need no build
 */
export async function startAgent(flags: readonly string[], program: readonly string[] = ['src/main.ts']) {
  const { child, log, httpAddress, metrics, stop, kill } = await startServing(
    ['agent', '--http-address', '127.0.0.1:0', ...flags],
    program,
  );
  return {
    log,
    pid: child.pid ?? 0,
    metrics,
    stop,
    /** Returns the body of /readyz without its line break. */
    readiness: async () => (await (await fetch(`http://${httpAddress}/readyz`)).text()).trim(),
    [Symbol.asyncDispose]: kill,
  };
}
