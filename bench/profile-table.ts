/** What of a CPU profile is for people to read: where the time goes, by part of the program and by function. */

/** What of V8's profile is read here: https://chromedevtools.github.io/devtools-protocol/v8/Profiler/#type-Profile */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  /** The node of each sample, and the microseconds since the one before. */
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly children?: readonly number[];
}

const MAX_LINES = 25;
/** What V8 adds to the program's functions. `(program)` is native code that no function called, as TLS that reads. */
const IDLE = '(idle)';
const GARBAGE_COLLECTOR = '(garbage collector)';
const NATIVE_PROGRAM = '(program)';

/**
 * Self time by part and by function: the main thread's only, idle time left out. A function of Node's bindings counts
 * for the part that called it; those of the engine itself, as JSON.parse, V8 does not tell from the function that calls.
 *
 * @param root as `file:///…/`, cut off from what is shown
 * @param objects how many rows were written meanwhile
 */
export function profileTable(profile: CpuProfile, root: string, objects: number): string {
  const described = describeNodes(profile.nodes, root);
  const byPart = new Map<string, number>();
  const byFunction = new Map<string, number>();
  let busyMs = 0;
  for (const [index, id] of profile.samples.entries()) {
    const { part, location } = described.get(id) ?? { part: NATIVE_PROGRAM, location: NATIVE_PROGRAM };
    if (location === IDLE) continue;
    const ms = (profile.timeDeltas[index] ?? 0) / 1000;
    busyMs += ms;
    byPart.set(part, (byPart.get(part) ?? 0) + ms);
    const label = `${part.padEnd(18)}  ${location}`;
    byFunction.set(label, (byFunction.get(label) ?? 0) + ms);
  }
  const lines = (times: ReadonlyMap<string, number>): string[] =>
    [...times]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, MAX_LINES)
      .map(([name, ms]) => {
        const share = ((100 * ms) / busyMs).toFixed(1);
        return `${ms.toFixed(0).padStart(7)} ms  ${share.padStart(5)} %  ${name}`;
      });
  return [
    `${busyMs.toFixed(0)} ms busy on the main thread for ${objects} rows, ${(busyMs / objects).toFixed(3)} ms each; by part:`,
    ...lines(byPart),
    `by function, without what it calls:`,
    ...lines(byFunction),
  ].join('\n');
}

interface NodeDescription {
  readonly part: string;
  readonly location: string;
}

/** The same function called from many places is one, unless it is native and counts for different parts. */
function describeNodes(nodes: readonly ProfileNode[], root: string): Map<number, NodeDescription> {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const described = new Map<number, NodeDescription>();
  // A parent comes before its children in V8's list.
  for (const { id, callFrame } of nodes) {
    const { functionName, url, lineNumber } = callFrame;
    const name = functionName === '' ? '(anonymous)' : functionName;
    const location = url === '' ? name : `${name}  ${url.replace(root, '')}:${lineNumber + 1}`;
    const caller = described.get(parents.get(id) ?? Number.NaN)?.part;
    described.set(id, { part: partOf(name, url, root, caller), location });
  }
  return described;
}

function partOf(name: string, url: string, root: string, caller: string | undefined): string {
  if (name === GARBAGE_COLLECTOR) return 'garbage collection';
  if (url === '') return name === NATIVE_PROGRAM || caller === undefined ? 'native alone' : caller;
  if (url.startsWith('node:')) return 'Node';
  const dependency = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (dependency !== undefined) return dependency;
  return url.startsWith(root) ? 'own code' : 'other';
}
