import type { LabelMatch, Match } from './expectation.ts';
import type { Names } from './names.ts';
import { Drift, tunnelLabel, type ObservedTunnel, type TunnelLabel } from './tunnel-object.ts';
import { parseReporterKey, type Tunnel } from './tunnel.ts';

/** Whether the tunnel of an object counts: an Unknown one does not count as connected, an absent one not at all. */
export type Presence = 'connected' | 'unknown' | 'absent';

/**
 * Returns whether an object counts. An object that is being deleted, whose tunnel has closed, or that was created
 * manually under a name of its own, is absent.
 */
export function presenceOf({ drift }: Pick<ObservedTunnel, 'drift'>): Presence {
  if ((drift & (Drift.terminating | Drift.closed | Drift.name)) !== 0) return 'absent';
  return (drift & Drift.unknown) === 0 ? 'connected' : 'unknown';
}

/** Weight of a connected tunnel in the packed counts of a reporter. A reporter has far fewer Unknown tunnels. */
const CONNECTED = 2 ** 24;

/** The number of tunnels that match, by reporter. All expectations with an equal match share one group. */
export class TunnelGroup {
  readonly match: Match;
  /** Connected and Unknown tunnels of each reporter, packed into one number: there may be 100,000 groups. */
  readonly #byReporter = new Map<string, number>();
  #connected = 0;
  #unknown = 0;
  #connectedReporters = 0;

  constructor(match: Match) {
    this.match = match;
  }

  get connected(): number {
    return this.#connected;
  }

  get unknown(): number {
    return this.#unknown;
  }

  /** Distinct reporters with a connected tunnel. */
  get connectedReporters(): number {
    return this.#connectedReporters;
  }

  /** Distinct reporters with a connected or an Unknown tunnel. */
  get reporters(): number {
    return this.#byReporter.size;
  }

  /** Returns the keys of the reporters with a connected tunnel. */
  *connectedReporterKeys(): Generator<string> {
    for (const [key, packed] of this.#byReporter) if (packed >= CONNECTED) yield key;
  }

  /**
   * Adds a tunnel, or removes one with `count` -1.
   *
   * A removal may precede the addition of the same tunnel, as long as both happen.
   */
  add(reporterKey: string, presence: 'connected' | 'unknown', count: 1 | -1): void {
    const before = this.#byReporter.get(reporterKey) ?? 0;
    const after = before + (presence === 'connected' ? count * CONNECTED : count);
    if (after === 0) this.#byReporter.delete(reporterKey);
    else this.#byReporter.set(reporterKey, after);
    if (presence === 'connected') this.#connected += count;
    else this.#unknown += count;
    this.#connectedReporters += Number(after >= CONNECTED) - Number(before >= CONNECTED);
  }
}

/** Bits of a shape: which values of a tunnel an identity match compares. */
const TENANT = 1;
const CLUSTER = 2;
const NODE = 4;

/**
 * Finds the groups of a tunnel. Identity matches cost one lookup per combination of compared values that is in use, at
 * most 8. A label match is indexed by one of its labels, the one by which the fewest others are indexed so far; those that
 * only exclude values are compared one by one. The cost hardly depends on groups that do not match, except for the latter.
 */
export class GroupIndex {
  readonly #names: Pick<Names, 'labelValue'>;
  /** By shape, then by the compared values. */
  readonly #byIdentity: (Map<string, TunnelGroup> | undefined)[] = [];
  readonly #byLabel = new Map<TunnelLabel, Map<string, Set<TunnelGroup>>>();
  /** The requirement by which a label match is indexed. */
  readonly #anchors = new Map<TunnelGroup, Anchor>();
  readonly #excluding = new Set<TunnelGroup>();

  constructor(names: Pick<Names, 'labelValue'>) {
    this.#names = names;
  }

  /** Adds a group. Its match must not be that of another group. */
  insert(group: TunnelGroup): void {
    const { match } = group;
    if (match.kind === 'identity') {
      const shape = shapeOf(match);
      const byValues = (this.#byIdentity[shape] ??= new Map());
      byValues.set(identityKey(shape, match), group);
      return;
    }
    const anchor = this.#anchorFor(match);
    if (anchor === undefined) {
      this.#excluding.add(group);
      return;
    }
    this.#anchors.set(group, anchor);
    let byValue = this.#byLabel.get(anchor.label);
    if (byValue === undefined) this.#byLabel.set(anchor.label, (byValue = new Map()));
    for (const value of anchor.allowed) {
      const groups = byValue.get(value);
      if (groups === undefined) byValue.set(value, new Set([group]));
      else groups.add(group);
    }
  }

  remove(group: TunnelGroup): void {
    const { match } = group;
    if (match.kind === 'identity') {
      const shape = shapeOf(match);
      const byValues = this.#byIdentity[shape];
      byValues?.delete(identityKey(shape, match));
      if (byValues?.size === 0) this.#byIdentity[shape] = undefined;
      return;
    }
    this.#excluding.delete(group);
    const anchor = this.#anchors.get(group);
    if (anchor === undefined) return;
    this.#anchors.delete(group);
    const byValue = this.#byLabel.get(anchor.label);
    for (const value of anchor.allowed) {
      const groups = byValue?.get(value);
      groups?.delete(group);
      if (groups?.size === 0) byValue?.delete(value);
    }
    if (byValue?.size === 0) this.#byLabel.delete(anchor.label);
  }

  /** Returns the groups that a tunnel belongs to. */
  groupsOf(reporterKey: string, tunnel: Tunnel): TunnelGroup[] {
    const found: TunnelGroup[] = [];
    for (let shape = 0; shape < this.#byIdentity.length; shape += 1) {
      const group = this.#byIdentity[shape]?.get(identityKey(shape, tunnel));
      if (group !== undefined) found.push(group);
    }
    if (this.#anchors.size + this.#excluding.size > 0) this.#addLabelGroups(reporterKey, tunnel, found);
    return found;
  }

  /** Returns the requirement that shares its values with the fewest groups; undefined if all only exclude values. */
  #anchorFor({ requirements }: LabelMatch): Anchor | undefined {
    let best: Anchor | undefined;
    let bestCost = Infinity;
    for (const { label, allowed } of requirements) {
      if (allowed === undefined) continue;
      const byValue = this.#byLabel.get(label);
      let cost = 0;
      for (const value of allowed) cost = Math.max(cost, byValue?.get(value)?.size ?? 0);
      if (cost > bestCost || (cost === bestCost && allowed.size >= (best?.allowed.size ?? Infinity)))
        continue;
      best = { label, allowed };
      bestCost = cost;
    }
    return best;
  }

  #addLabelGroups(reporterKey: string, tunnel: Tunnel, found: TunnelGroup[]): void {
    const reporter = parseReporterKey(reporterKey);
    // Computed on demand: most tunnels have no candidate.
    const valueOf = (label: TunnelLabel): string => tunnelLabel(this.#names, label, reporter, tunnel);
    for (const [label, byValue] of this.#byLabel)
      for (const group of byValue.get(valueOf(label)) ?? [])
        if (matchesLabels(group.match as LabelMatch, valueOf)) found.push(group);
    for (const group of this.#excluding)
      if (matchesLabels(group.match as LabelMatch, valueOf)) found.push(group);
  }
}

/** A requirement that allows certain values only. */
interface Anchor {
  readonly label: TunnelLabel;
  readonly allowed: ReadonlySet<string>;
}

/** The values that an identity match compares. */
interface Identity {
  readonly tenantID: string | undefined;
  readonly clusterID: string | undefined;
  readonly nodeID: string | undefined;
}

function shapeOf({ tenantID, clusterID, nodeID }: Identity): number {
  return (
    (tenantID === undefined ? 0 : TENANT) |
    (clusterID === undefined ? 0 : CLUSTER) |
    (nodeID === undefined ? 0 : NODE)
  );
}

/** Returns the compared values as one text. None contains a line feed: control characters are rejected everywhere. */
function identityKey(shape: number, { tenantID = '', clusterID = '', nodeID = '' }: Identity): string {
  switch (shape) {
    case 0:
      return '';
    case TENANT:
      return tenantID;
    case CLUSTER:
      return clusterID;
    case NODE:
      return nodeID;
    case TENANT | CLUSTER:
      return `${tenantID}\n${clusterID}`;
    case TENANT | NODE:
      return `${tenantID}\n${nodeID}`;
    case CLUSTER | NODE:
      return `${clusterID}\n${nodeID}`;
    default:
      return `${tenantID}\n${clusterID}\n${nodeID}`;
  }
}

/** Returns true if the labels of a tunnel meet all requirements. */
function matchesLabels({ requirements }: LabelMatch, valueOf: (label: TunnelLabel) => string): boolean {
  for (const { label, allowed, denied } of requirements) {
    const value = valueOf(label);
    if (allowed === undefined ? denied.has(value) : !allowed.has(value)) return false;
  }
  return true;
}
