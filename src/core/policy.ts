import { dnsPatternMistake, spiffePattern, type PatternMistake, type SpiffePattern } from './peer-pattern.ts';
import type { LimitsSpec, PeerSpec, PolicySpec, RuleSpec } from './policy-object.ts';
import { textMatcher, textPatternMistake, type TextMatcher } from './text-pattern.ts';
import { shown } from './violation.ts';

/** A rule that can be asked. */
export interface Rule {
  readonly peers: PeerMatcher;
  readonly reporterIds: TextMatcher;
  readonly reporterClusters: TextMatcher;
  readonly scope: Scope;
}

/** Which peers a rule is about: one of these is enough. */
export interface PeerMatcher {
  /** Every peer, also one that was asked for nothing. */
  readonly any: boolean;
  readonly spiffe: readonly SpiffePattern[];
  /** In lower case; `*.` and a name for any one label before it. */
  readonly dnsNames: ReadonlySet<string>;
  /** As `namespace/name`, or `namespace/*` for all of a namespace; neither part can hold a slash. */
  readonly accounts: ReadonlySet<string>;
}

/** Which tunnels a rule allows, and how many, how fast. */
export interface Scope {
  readonly tenants: readonly string[];
  readonly clusters: readonly string[];
  /** Undefined: no limit by this rule. */
  readonly tunnels: number | undefined;
  readonly rate: Rate | undefined;
  /** Equal for scopes that allow the same. */
  readonly text: string;
}

/** How often something may be done, as a report be read: `core/token-bucket` counts by it. */
export interface Rate {
  readonly perSecond: number;
  /** At once, after a pause. */
  readonly burst: number;
}

/** A policy that was read: its rules, or what is wrong with it, one line for each mistake. */
export type ParsedPolicy =
  | { readonly rules: readonly Rule[]; readonly mistakes: undefined }
  | { readonly rules: undefined; readonly mistakes: readonly string[] };

const EVERY = ['*'];
const DEFAULT_BURST = 10;
/** Kubernetes' own rule for namespaces; of ServiceAccounts each label between dots is one. */
const DNS_1123 = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * Reads a policy. One mistake refuses all of it, so that a policy never means less, or more, than it says: what it would
 * have allowed is not allowed until it is mended.
 */
export function parsePolicy(spec: PolicySpec): ParsedPolicy {
  const mistakes: string[] = [];
  const rules = (spec.rules ?? []).map((rule, index) =>
    parseRule(rule, (field, what) => mistakes.push(`spec.rules[${index}].${field}: ${what}`)),
  );
  return mistakes.length === 0 ? { rules, mistakes: undefined } : { rules: undefined, mistakes };
}

type Complain = (field: string, what: string) => void;

function parseRule(rule: RuleSpec, complain: Complain): Rule {
  const { ids = [], clusters = EVERY } = rule.reporters ?? {};
  checkTexts('reporters.ids', ids, complain);
  checkTexts('reporters.clusters', clusters, complain, true);
  return {
    peers: parsePeers(rule.peers ?? [], complain),
    reporterIds: textMatcher(ids),
    reporterClusters: textMatcher(clusters),
    scope: parseScope(rule, complain),
  };
}

function parsePeers(peers: readonly PeerSpec[], complain: Complain): PeerMatcher {
  let any = false;
  const spiffe: SpiffePattern[] = [];
  const dnsNames = new Set<string>();
  const accounts = new Set<string>();
  if (peers.length === 0) complain('peers', 'must not be empty; {any: true} matches every peer');
  for (const [index, peer] of peers.entries()) {
    const at = (field: string, what: string): void => complain(`peers[${index}]${field}`, what);
    const kinds = [peer.spiffeID, peer.dnsName, peer.serviceAccount, peer.any];
    if (kinds.filter((one) => one !== undefined).length !== 1) {
      at('', 'must set exactly one of spiffeID, dnsName, serviceAccount and any');
      continue;
    }
    if (peer.any === true) any = true;
    else if (peer.any === false) at('.any', 'must be true');
    if (peer.spiffeID !== undefined) {
      const pattern: SpiffePattern | PatternMistake = spiffePattern(peer.spiffeID);
      if ('mistake' in pattern) at('.spiffeID', pattern.mistake);
      else spiffe.push(pattern);
    }
    if (peer.dnsName !== undefined) {
      const mistake = dnsPatternMistake(peer.dnsName);
      if (mistake === undefined) dnsNames.add(peer.dnsName.toLowerCase());
      else at('.dnsName', mistake);
    }
    if (peer.serviceAccount !== undefined) {
      const { namespace, name } = peer.serviceAccount;
      if (!DNS_1123.test(namespace))
        at('.serviceAccount.namespace', `${shown(namespace)} is not a namespace name`);
      if (name !== '*' && !name.split('.').every((label) => DNS_1123.test(label)))
        at(
          '.serviceAccount.name',
          `${shown(name)} is not a ServiceAccount name, or * for all in the namespace`,
        );
      accounts.add(`${namespace}/${name}`);
    }
  }
  return { any, spiffe, dnsNames, accounts };
}

function parseScope({ tenants = [], clusters = EVERY, limits = {} }: RuleSpec, complain: Complain): Scope {
  checkTexts('tenants', tenants, complain);
  checkTexts('clusters', clusters, complain);
  const { tunnels, rate } = parseLimits(limits, complain);
  // Of equal patterns in another order the text differs, which costs a comparison of rows and no more.
  return { tenants, clusters, tunnels, rate, text: JSON.stringify([tenants, clusters, tunnels, rate]) };
}

function parseLimits(limits: LimitsSpec, complain: Complain): Pick<Scope, 'tunnels' | 'rate'> {
  const { tunnels, reportsPerSecond: perSecond, reportsBurst: burst } = limits;
  for (const [field, value] of Object.entries({
    tunnels,
    reportsPerSecond: perSecond,
    reportsBurst: burst,
  })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
      complain(`limits.${field}`, `${value} must be a whole number of at least 1`);
  }
  if (burst !== undefined && perSecond === undefined)
    complain('limits.reportsBurst', 'requires reportsPerSecond');
  return {
    tunnels,
    rate: perSecond === undefined ? undefined : { perSecond, burst: burst ?? DEFAULT_BURST },
  };
}

function checkTexts(
  field: string,
  patterns: readonly string[],
  complain: Complain,
  mayBeEmpty = false,
): void {
  if (patterns.length === 0) complain(field, 'must not be empty; * matches every value');
  for (const [index, pattern] of patterns.entries()) {
    const mistake = textPatternMistake(pattern, mayBeEmpty);
    if (mistake !== undefined) complain(`${field}[${index}]`, mistake);
  }
}
