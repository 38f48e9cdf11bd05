/** A command that looks at a cluster and ends; given its own arguments, resolves with the exit code. */
export type Subcommand = (argv: readonly string[]) => Promise<number>;

/** What `kubectl rt` can do, for its usage. */
export const SUBCOMMANDS = ['doctor', 'status'] as const;

/** The hand tool of that name, loaded when it is used: the operator needs none of them. */
export function findSubcommand(name: string | undefined): Subcommand | undefined {
  switch (name) {
    case 'doctor':
      return async (argv) => (await import('./doctor/main.ts')).runDoctor(argv);
    case 'status':
      return async (argv) => (await import('./status/main.ts')).runStatus(argv);
    default:
      return undefined;
  }
}
