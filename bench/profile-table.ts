/** A summary of a CPU profile: the time per part of the program and per function. */

/** The used part of a V8 profile: https://chromedevtools.github.io/devtools-protocol/v8/Profiler/#type-Profile */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  /** The node of each sample. `timeDeltas` are the microseconds since the previous sample. */
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: {
    readonly functionName: string;
    readonly url: string;
    /** From 0, as the column. */
    readonly lineNumber: number;
    readonly columnNumber: number;
  };
  readonly children?: readonly number[];
}

const MAX_LINES = 25;
/** Nodes that V8 adds. `(program)` is native code that no function called, such as reading from TLS. */
const IDLE = '(idle)';
const GARBAGE_COLLECTOR = '(garbage collector)';
const NATIVE_PROGRAM = '(program)';

/**
 * Returns a table of the self time of the main thread per part and per function, without idle time. A function of Node's
 * bindings counts for the part that called it. V8 attributes built-in functions such as JSON.parse to their caller.
 *
 * @param root such as `file:///…/`; omitted from the printed URLs
 * @param objects the number of objects that were written during the profile
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
    `${busyMs.toFixed(0)} ms busy on the main thread for ${objects} objects, ${(busyMs / objects).toFixed(3)} ms per object; by part:`,
    ...lines(byPart),
    `by function (self time):`,
    ...lines(byFunction),
  ].join('\n');
}

interface NodeDescription {
  readonly part: string;
  readonly location: string;
}

/** Describes each node. Nodes of the same function share a description, unless native code counts for different parts. */
function describeNodes(nodes: readonly ProfileNode[], root: string): Map<number, NodeDescription> {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  const described = new Map<number, NodeDescription>();
  // V8 lists a parent before its children.
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
  if (url === '') return name === NATIVE_PROGRAM || caller === undefined ? 'native only' : caller;
  if (url.startsWith('node:')) return 'Node';
  const dependency = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1];
  if (dependency !== undefined) return dependency;
  return url.startsWith(root) ? 'own code' : 'other';
}
