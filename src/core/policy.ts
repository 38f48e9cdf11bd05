import { dnsPatternError, parseSpiffePattern, type PatternError, type SpiffePattern } from './peer.ts';
import type { LimitsSpec, PeerSpec, PolicySpec, RuleSpec } from './policy-object.ts';
import { REPRESENTATIONS, type Representation } from './representation.ts';
import { createTextMatcher, quote, textPatternError, type TextMatcher } from './text.ts';
import type { Rate } from './token-bucket.ts';

/** A parsed rule of a policy. */
export interface Rule {
  readonly peers: PeerMatcher;
  readonly reporterIds: TextMatcher;
  readonly reporterClusters: TextMatcher;
  readonly scope: Scope;
}

/** The peers that a rule selects. A peer is selected if one of the fields matches. */
export interface PeerMatcher {
  /** True for every peer, including an anonymous one. */
  readonly any: boolean;
  readonly spiffe: readonly SpiffePattern[];
  /** In lower case; `*.` and a name matches any one label before it. */
  readonly dnsNames: ReadonlySet<string>;
  /** As `namespace/name`, or `namespace/*` for all of a namespace; neither part can contain a slash. */
  readonly accounts: ReadonlySet<string>;
}

/** The tunnels that a rule allows, and its limits. */
export interface Scope {
  readonly tenants: readonly string[];
  readonly clusters: readonly string[];
  /** Undefined: this rule sets no limit. */
  readonly tunnels: number | undefined;
  readonly rate: Rate | undefined;
  /** How the tunnels are written. Undefined: this rule does not decide it. */
  readonly representation: Representation | undefined;
  /** Equal only for scopes that allow the same, in the same representation. */
  readonly fingerprint: string;
}

/** The rules of a policy, or all its errors, one line each. */
export type ParsedPolicy =
  | { readonly rules: readonly Rule[]; readonly errors: undefined }
  | { readonly rules: undefined; readonly errors: readonly string[] };

const ANY_VALUE = ['*'];
const DEFAULT_BURST = 10;
/** The rule of Kubernetes for namespaces, and for each label of a ServiceAccount name. */
const DNS_1123 = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * Parses a policy. One error makes the whole policy invalid, so that a policy never allows less, or more, than its text:
 * until the error is fixed, the policy allows nothing.
 */
export function parsePolicy(spec: PolicySpec): ParsedPolicy {
  const errors: string[] = [];
  const rules = (spec.rules ?? []).map((rule, index) =>
    parseRule(rule, (field, message) => errors.push(`spec.rules[${index}].${field}: ${message}`)),
  );
  return errors.length === 0 ? { rules, errors: undefined } : { rules: undefined, errors };
}

type ReportError = (field: string, message: string) => void;

function parseRule(rule: RuleSpec, reportError: ReportError): Rule {
  const { ids = [], clusters = ANY_VALUE } = rule.reporters ?? {};
  validatePatterns('reporters.ids', ids, reportError);
  validatePatterns('reporters.clusters', clusters, reportError, true);
  return {
    peers: parsePeers(rule.peers ?? [], reportError),
    reporterIds: createTextMatcher(ids),
    reporterClusters: createTextMatcher(clusters),
    scope: parseScope(rule, reportError),
  };
}

function parsePeers(peers: readonly PeerSpec[], reportError: ReportError): PeerMatcher {
  let any = false;
  const spiffe: SpiffePattern[] = [];
  const dnsNames = new Set<string>();
  const accounts = new Set<string>();
  if (peers.length === 0) reportError('peers', 'must not be empty; {any: true} matches every peer');
  for (const [index, peer] of peers.entries()) {
    const reportAt = (field: string, message: string): void =>
      reportError(`peers[${index}]${field}`, message);
    const kinds = [peer.spiffeID, peer.dnsName, peer.serviceAccount, peer.any];
    if (kinds.filter((kind) => kind !== undefined).length !== 1) {
      reportAt('', 'must set exactly one of spiffeID, dnsName, serviceAccount and any');
      continue;
    }
    if (peer.any === true) any = true;
    else if (peer.any === false) reportAt('.any', 'must be true');
    if (peer.spiffeID !== undefined) {
      const pattern: SpiffePattern | PatternError = parseSpiffePattern(peer.spiffeID);
      if ('error' in pattern) reportAt('.spiffeID', pattern.error);
      else spiffe.push(pattern);
    }
    if (peer.dnsName !== undefined) {
      const error = dnsPatternError(peer.dnsName);
      if (error === undefined) dnsNames.add(peer.dnsName.toLowerCase());
      else reportAt('.dnsName', error);
    }
    if (peer.serviceAccount !== undefined) {
      const { namespace, name } = peer.serviceAccount;
      if (!DNS_1123.test(namespace))
        reportAt('.serviceAccount.namespace', `${quote(namespace)} is not a namespace name`);
      if (name !== '*' && !name.split('.').every((label) => DNS_1123.test(label)))
        reportAt(
          '.serviceAccount.name',
          `${quote(name)} is not a ServiceAccount name, or * for all in the namespace`,
        );
      accounts.add(`${namespace}/${name}`);
    }
  }
  return { any, spiffe, dnsNames, accounts };
}

function parseScope(
  { tenants = [], clusters = ANY_VALUE, limits = {}, representation }: RuleSpec,
  reportError: ReportError,
): Scope {
  validatePatterns('tenants', tenants, reportError);
  validatePatterns('clusters', clusters, reportError);
  const { tunnels, rate } = parseLimits(limits, reportError);
  if (representation !== undefined && !REPRESENTATIONS.includes(representation))
    reportError('representation', `${quote(representation)} must be ${REPRESENTATIONS.join(' or ')}`);
  // Equal patterns in another order have another fingerprint, which only costs a comparison of the objects.
  return {
    tenants,
    clusters,
    tunnels,
    rate,
    representation,
    fingerprint: JSON.stringify([tenants, clusters, tunnels, rate, representation]),
  };
}

function parseLimits(limits: LimitsSpec, reportError: ReportError): Pick<Scope, 'tunnels' | 'rate'> {
  const { tunnels, reportsPerSecond: perSecond, reportsBurst: burst } = limits;
  for (const [field, value] of Object.entries({
    tunnels,
    reportsPerSecond: perSecond,
    reportsBurst: burst,
  })) {
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
      reportError(`limits.${field}`, `${value} must be a whole number of at least 1`);
  }
  if (burst !== undefined && perSecond === undefined)
    reportError('limits.reportsBurst', 'requires reportsPerSecond');
  return {
    tunnels,
    rate: perSecond === undefined ? undefined : { perSecond, burst: burst ?? DEFAULT_BURST },
  };
}

function validatePatterns(
  field: string,
  patterns: readonly string[],
  reportError: ReportError,
  allowEmpty = false,
): void {
  if (patterns.length === 0) reportError(field, 'must not be empty; * matches every value');
  for (const [index, pattern] of patterns.entries()) {
    const error = textPatternError(pattern, allowEmpty);
    if (error !== undefined) reportError(`${field}[${index}]`, error);
  }
}
