import { ALLOW_ALL, DENY_ALL, grantFromScopes, type Grant } from './grant.ts';
import {
  describePeer,
  matchesDns,
  matchesSpiffe,
  normalizeDnsName,
  peerKey,
  spiffeIdOf,
  type Peer,
  type SpiffeId,
} from './peer.ts';
import type { PeerMatcher, Rule } from './policy.ts';
import type { Violation } from './report.ts';
import { matchesText, quote } from './text.ts';
import type { ReporterId, Tunnel } from './tunnel.ts';

/** All policies of the namespace at one moment. */
export interface PolicySet {
  /** False if everything is allowed, because there are no policies and none is required; no check is then needed. */
  readonly hasPolicies: boolean;
  /** Returns true if the peer may report at all. */
  admits(peer: Peer): boolean;
  /** Returns what the peer may report as this reporter; undefined if it must not be that reporter. */
  grant(peer: Peer, reporter: ReporterId): Grant | undefined;
}

/** The set without policies: every peer that `--auth` accepts may report everything. */
export const ALLOW_ALL_POLICIES: PolicySet = {
  hasPolicies: false,
  admits: () => true,
  grant: () => ALLOW_ALL,
};

/** The set without policies if one is required: no peer may report. */
export const REQUIRED_POLICY_MISSING: PolicySet = {
  hasPolicies: true,
  admits: () => false,
  grant: () => undefined,
};

/**
 * Returns the set that is in force.
 *
 * @param policyCount number of policies in the namespace, accepted or not
 * @param rules of all policies that were accepted
 * @param isRequired whether a namespace without policies admits no peer (`--require-policy`) instead of every peer
 */
export function policySetInForce(
  policyCount: number,
  rules: readonly Rule[],
  isRequired: boolean,
): PolicySet {
  if (policyCount > 0) return createPolicySet(rules);
  return isRequired ? REQUIRED_POLICY_MISSING : ALLOW_ALL_POLICIES;
}

/** Maximum number of cached peers and of cached grants. A fleet has fewer; the others are computed each time. */
const MAX_CACHED = 4096;

/**
 * Creates the set of all accepted policies.
 *
 * @param rules of all policies that were accepted; without rules, no peer is admitted
 */
export function createPolicySet(rules: readonly Rule[]): PolicySet {
  const rulesByPeer = new Map<string, readonly number[]>();
  const grants = new Map<string, Grant>();

  /** Cached, because a peer has one stream for each reporter behind it, and reconnects. */
  function rulesFor(peer: Peer): readonly number[] {
    const key = peerKey(peer);
    let indexes = rulesByPeer.get(key);
    if (indexes === undefined) {
      const identity = identityOf(peer);
      indexes = [...rules.keys()].filter((index) => {
        const rule = rules[index];
        return rule !== undefined && matchesPeer(rule.peers, identity);
      });
      if (rulesByPeer.size < MAX_CACHED) rulesByPeer.set(key, indexes);
    }
    return indexes;
  }

  return {
    hasPolicies: true,
    admits: (peer) => rulesFor(peer).length > 0,
    grant(peer, reporter) {
      const indexes = rulesFor(peer).filter((index) => {
        const rule = rules[index];
        return (
          rule !== undefined &&
          matchesText(rule.reporterIds, reporter.id) &&
          matchesText(rule.reporterClusters, reporter.cluster)
        );
      });
      if (indexes.length === 0) return undefined;
      // Reporters with the same rules share a grant and its cache of tenants.
      const key = indexes.join();
      let grant = grants.get(key);
      if (grant === undefined) {
        grant = grantFromScopes(indexes.flatMap((index) => rules[index]?.scope ?? []));
        if (grants.size < MAX_CACHED) grants.set(key, grant);
      }
      return grant;
    },
  };
}

/** Returns the grant of a peer; if the peer must not be the reporter, a grant that denies all tunnels. */
export function grantOrDeny(set: PolicySet, peer: Peer, reporter: ReporterId): Grant {
  return set.grant(peer, reporter) ?? DENY_ALL;
}

/** Returns the message for a peer that the set does not admit. */
export function peerRejection(set: PolicySet, peer: Peer): string {
  return set === REQUIRED_POLICY_MISSING
    ? 'no ReverseTunnelPolicy exists, and --require-policy is set: every client is rejected until one exists'
    : `no ReverseTunnelPolicy admits ${describePeer(peer)}`;
}

/** Returns the violation of a peer that must not report as this reporter. */
export function reporterRejection(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message: `node.id: ${quote(id)} in node.cluster ${quote(cluster)} is not allowed by any ReverseTunnelPolicy for ${describePeer(peer)}`,
  };
}

/** Returns the violation of a peer whose reporter is held by another peer with tunnels that this peer must not report. */
export function heldByOtherPeer(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message:
      `node.id: ${quote(id)} in node.cluster ${quote(cluster)} is held by another peer, which may report tunnels that no ` +
      `ReverseTunnelPolicy allows for ${describePeer(peer)}; retry once that peer loses access or its tunnels expire`,
  };
}

/** Returns the message for a tunnel that its reporter must not report. */
export function deniedTunnelMessage({ name, tenantID, clusterID }: Tunnel): string {
  return `tunnel ${quote(name)}: tenant ${quote(tenantID)} in cluster ${quote(clusterID)} is not allowed for this reporter by any ReverseTunnelPolicy`;
}

/** The identity of a peer in the form that matchers compare. */
interface PeerIdentity {
  readonly spiffe: SpiffeId | undefined;
  readonly dnsNames: readonly string[];
  readonly account: { readonly exact: string; readonly wildcard: string } | undefined;
}

function identityOf(peer: Peer): PeerIdentity {
  if (peer.kind === 'certificate') {
    const dnsNames = peer.dnsNames.flatMap((name) => normalizeDnsName(name) ?? []);
    return { spiffe: spiffeIdOf(peer.uris), dnsNames, account: undefined };
  }
  if (peer.kind === 'token') {
    const { namespace, serviceAccount } = peer;
    const account = { exact: `${namespace}/${serviceAccount}`, wildcard: `${namespace}/*` };
    return { spiffe: undefined, dnsNames: [], account };
  }
  return { spiffe: undefined, dnsNames: [], account: undefined };
}

function matchesPeer(matcher: PeerMatcher, { spiffe, dnsNames, account }: PeerIdentity): boolean {
  return (
    matcher.any ||
    (spiffe !== undefined && matcher.spiffe.some((pattern) => matchesSpiffe(pattern, spiffe))) ||
    dnsNames.some((name) => matchesDns(matcher.dnsNames, name)) ||
    (account !== undefined && (matcher.accounts.has(account.exact) || matcher.accounts.has(account.wildcard)))
  );
}
