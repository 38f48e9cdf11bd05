import type { Expectation } from './expectation.ts';
import { pluralize, quote } from './text.ts';
import type { TunnelGroup } from './tunnel-groups.ts';

/**
 * What the connected tunnels show at one moment.
 *
 * - `Satisfied`: there are enough tunnels through enough reporters.
 * - `Missing`: a listed node has no connected tunnel, or, without listed nodes, no matching tunnel is connected.
 * - `TooFewTunnels`, `TooFewReporters`: there are some, but not enough.
 * - `Unknown`: the Unknown tunnels of disconnected reporters would suffice if they were connected.
 */
export type Finding = 'Satisfied' | 'Missing' | 'TooFewTunnels' | 'TooFewReporters' | 'Unknown';

/** Numbers for the status. */
export interface TallySummary {
  readonly tunnels: number;
  readonly reporters: number;
  readonly unknown: number;
  readonly missing: number;
  readonly missingNodes: readonly string[];
}

/** Maximum number of missing nodes that the status lists. */
export const MAX_MISSING_NODES = 20;

/** How a group falls short; the numbers are array indexes. */
const ENOUGH = 0;
const NONE_CONNECTED = 1;
const FEW_TUNNELS = 2;
const FEW_REPORTERS = 3;
/** Added to a shortfall that the Unknown tunnels would end. */
const MAY_BE_UNKNOWN = 4;

/**
 * Compares the groups of one expectation with its minimums. `update` takes the same time however many nodes the
 * expectation lists; `summary` and `describe` take time for each of them.
 */
export class ExpectationTally {
  readonly #expectation: Expectation;
  readonly #groups: readonly TunnelGroup[];
  readonly #states: Uint8Array;
  /** Number of groups by state. */
  readonly #counts = new Uint32Array(2 * MAY_BE_UNKNOWN);

  /** @param groups those of `expectation.matches`, in the same order */
  constructor(expectation: Expectation, groups: readonly TunnelGroup[]) {
    this.#expectation = expectation;
    this.#groups = groups;
    this.#states = new Uint8Array(groups.length);
    this.#counts[ENOUGH] = groups.length;
    for (const index of groups.keys()) this.update(index);
  }

  /** Applies a change of the group at this index. */
  update(index: number): void {
    const group = this.#groups[index];
    if (group === undefined) return;
    const before = this.#states[index] ?? ENOUGH;
    const after = shortfallOf(group, this.#expectation);
    if (after === before) return;
    this.#states[index] = after;
    this.#add(before, -1);
    this.#add(after, 1);
  }

  get finding(): Finding {
    const short = this.#groups.length - this.#count(ENOUGH);
    if (short === 0) return 'Satisfied';
    if (this.#count(NONE_CONNECTED) > 0) return 'Missing';
    if (this.#count(FEW_TUNNELS) > 0) return 'TooFewTunnels';
    return this.#count(FEW_REPORTERS) > 0 ? 'TooFewReporters' : 'Unknown';
  }

  /** Returns the current numbers. */
  summary(): TallySummary {
    const { nodes } = this.#expectation;
    const missing = nodes === undefined ? 0 : this.#shortBy(NONE_CONNECTED);
    const missingNodes: string[] = [];
    for (let index = 0; missingNodes.length < Math.min(missing, MAX_MISSING_NODES); index += 1)
      if (isShortBy(this.#states[index], NONE_CONNECTED)) missingNodes.push(nodes?.[index] ?? '');
    let tunnels = 0;
    let unknown = 0;
    for (const group of this.#groups) {
      tunnels += group.connected;
      unknown += group.unknown;
    }
    return { tunnels, reporters: this.#countReporters(), unknown, missing, missingNodes };
  }

  /** Returns one sentence about what is connected and what is not, for a condition. */
  describe({ tunnels, reporters, unknown }: TallySummary): string {
    const counted =
      unknown === 0 ? '' : `; ${pluralize(unknown, 'tunnel')} Unknown, not counted as connected`;
    return `${this.#describeConnected(tunnels, reporters)}${counted}`;
  }

  #describeConnected(tunnels: number, reporters: number): string {
    const { nodes, minTunnels, minReporters } = this.#expectation;
    const short = this.#groups.length - this.#count(ENOUGH);
    if (short === 0)
      return `${pluralize(tunnels, 'tunnel')} connected through ${pluralize(reporters, 'reporter')}`;
    const expected = `at least ${pluralize(minTunnels, 'tunnel')} through at least ${pluralize(minReporters, 'reporter')}`;
    if (nodes === undefined || nodes.length === 1) {
      const node = nodes?.[0];
      const subject = node === undefined ? '' : `node ${quote(node)}: `;
      return `${subject}${pluralize(tunnels, 'tunnel')} connected through ${pluralize(reporters, 'reporter')}, expected ${expected}`;
    }
    const parts = [
      [this.#shortBy(NONE_CONNECTED), 'without a connected tunnel'],
      [this.#shortBy(FEW_TUNNELS), 'with too few tunnels'],
      [this.#shortBy(FEW_REPORTERS), 'with too few reporters'],
    ] as const;
    const listed = parts.filter(([count]) => count > 0).map(([count, text]) => `${count} ${text}`);
    const first = nodes[this.#states.findIndex((state) => state !== ENOUGH)] ?? '';
    return `${short} of ${nodes.length} nodes fall short of ${expected}: ${listed.join(', ')}; first ${quote(first)}`;
  }

  #countReporters(): number {
    const [first, ...others] = this.#groups;
    if (first !== undefined && others.length === 0) return first.connectedReporters;
    const reporters = new Set<string>();
    for (const group of this.#groups) for (const key of group.connectedReporterKeys()) reporters.add(key);
    return reporters.size;
  }

  #shortBy(shortfall: number): number {
    return this.#count(shortfall) + this.#count(shortfall + MAY_BE_UNKNOWN);
  }

  #count(state: number): number {
    return this.#counts[state] ?? 0;
  }

  #add(state: number, count: 1 | -1): void {
    this.#counts[state] = this.#count(state) + count;
  }
}

/** Returns how a group falls short, by the connected tunnels alone. */
function shortfallOf(group: TunnelGroup, { minTunnels, minReporters }: Expectation): number {
  const { connected, unknown, connectedReporters, reporters } = group;
  if (connected >= minTunnels && connectedReporters >= minReporters) return ENOUGH;
  const mayBeUnknown = connected + unknown >= minTunnels && reporters >= minReporters ? MAY_BE_UNKNOWN : 0;
  if (connected === 0) return NONE_CONNECTED + mayBeUnknown;
  return (connected < minTunnels ? FEW_TUNNELS : FEW_REPORTERS) + mayBeUnknown;
}

function isShortBy(state: number | undefined, shortfall: number): boolean {
  return state === shortfall || state === shortfall + MAY_BE_UNKNOWN;
}
