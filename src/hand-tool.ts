/** A command that looks at a cluster and ends; given its own arguments, resolves with the exit code. */
export type HandTool = (argv: readonly string[]) => Promise<number>;

/** What `kubectl rt` can do, for its usage. */
export const HAND_TOOLS = ['doctor', 'status'] as const;

/** The hand tool of that name, loaded when it is used: the operator needs none of them. */
export function handTool(name: string | undefined): HandTool | undefined {
  switch (name) {
    case 'doctor':
      return async (argv) => (await import('./doctor/main.ts')).runDoctor(argv);
    case 'status':
      return async (argv) => (await import('./status/main.ts')).runStatus(argv);
    default:
      return undefined;
  }
}
