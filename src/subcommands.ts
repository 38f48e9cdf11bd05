import { packageVersion } from './package-files.ts';

/** A subcommand: takes the arguments after its name and resolves with the exit code. */
export type Subcommand = (argv: readonly string[]) => Promise<number>;

/** Subcommands that inspect a cluster, and that `kubectl rt` therefore offers as well. */
export const KUBECTL_SUBCOMMANDS: readonly string[] = ['doctor', 'status', 'get', 'expect'];

/** Each subcommand is loaded only when it is used, so that the operator's memory contains none of them. */
const SUBCOMMANDS: Readonly<Record<string, Subcommand>> = {
  doctor: async (argv) => (await import('./doctor/doctor.ts')).runDoctor(argv),
  status: async (argv) => (await import('./status/status.ts')).runStatus(argv),
  get: async (argv) => (await import('./get/get.ts')).runGet(argv),
  expect: async (argv) => (await import('./expect/expect.ts')).runExpect(argv),
  simulate: async (argv) => (await import('./simulate/simulate.ts')).runSimulate(argv),
  agent: async (argv) => {
    const { preferSmallHeap } = await import('./agent/small-heap.ts');
    preferSmallHeap();
    return (await import('./agent/agent-command.ts')).runAgent(argv);
  },
  selftest: async (argv) => (await import('./selftest/selftest.ts')).runSelftest(argv, packageVersion()),
};

/** Returns the subcommand of that name. */
export function findSubcommand(name: string | undefined): Subcommand | undefined {
  return name !== undefined && Object.hasOwn(SUBCOMMANDS, name) ? SUBCOMMANDS[name] : undefined;
}
