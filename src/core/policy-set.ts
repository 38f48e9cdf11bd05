import { ALLOW_ALL, grantFromScopes, DENY_ALL, type Grant } from './grant.ts';
import { normalizeDnsName, matchesDns, matchesSpiffe } from './peer-pattern.ts';
import { peerKey, type Peer } from './peer.ts';
import type { PeerMatcher, Rule } from './policy.ts';
import { spiffeIdOf, type SpiffeId } from './spiffe-id.ts';
import { matchesText } from './text-pattern.ts';
import type { ReporterId } from './tunnel.ts';
import { quote } from './violation.ts';

/** All policies together, at one moment. */
export interface PolicySet {
  /** False: everything is allowed, and nothing need be asked. */
  readonly hasPolicies: boolean;
  /** Whether the peer may report at all. */
  admits(peer: Peer): boolean;
  /** What it may report as this reporter; undefined: it may not be that reporter. */
  grant(peer: Peer, reporter: ReporterId): Grant | undefined;
}

/** Without any policy: whoever proves what `--auth` asks for may report everything. */
export const ALLOW_ALL_POLICIES: PolicySet = {
  hasPolicies: false,
  admits: () => true,
  grant: () => ALLOW_ALL,
};

/** Peers and grants that are remembered; a fleet has fewer, and beyond it they are worked out anew. */
const MAX_CACHED = 4096;

/** @param rules of all policies that were accepted; none at all admits nobody */
export function createPolicySet(rules: readonly Rule[]): PolicySet {
  const rulesByPeer = new Map<string, readonly number[]>();
  const grants = new Map<string, Grant>();

  /** Which rules are about a peer. The same peer has a stream for each reporter behind it, and comes back. */
  function rulesFor(peer: Peer): readonly number[] {
    const text = peerKey(peer);
    let indexes = rulesByPeer.get(text);
    if (indexes === undefined) {
      const identity = identityOf(peer);
      indexes = [...rules.keys()].filter((index) => {
        const rule = rules[index];
        return rule !== undefined && matchesPeer(rule.peers, identity);
      });
      if (rulesByPeer.size < MAX_CACHED) rulesByPeer.set(text, indexes);
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
      // Reporters under the same rules share what is remembered of tenants.
      const text = indexes.join();
      let grant = grants.get(text);
      if (grant === undefined) {
        grant = grantFromScopes(indexes.flatMap((index) => rules[index]?.scope ?? []));
        if (grants.size < MAX_CACHED) grants.set(text, grant);
      }
      return grant;
    },
  };
}

/** What one is given who may not be a reporter: none of its tunnels may have a row. */
export function grantOrDeny(set: PolicySet, peer: Peer, reporter: ReporterId): Grant {
  return set.grant(peer, reporter) ?? DENY_ALL;
}

/** Who a peer is, for a message. */
export function describePeer(peer: Peer): string {
  switch (peer.kind) {
    case 'nothing':
      return 'an unauthenticated peer (--auth insecure)';
    case 'certificate':
      return `a peer with the certificate of ${joinNames([...peer.uris, ...peer.dnsNames])}`;
    case 'token':
      return `a peer with the token of ServiceAccount ${quote(`${peer.namespace}/${peer.serviceAccount}`)}`;
  }
}

/** The first few, as a certificate may hold hundreds. */
function joinNames(all: readonly string[]): string {
  if (all.length === 0) return 'no name';
  const first = all.slice(0, 3).map(quote).join(', ');
  return all.length > 3 ? `${first} and ${all.length - 3} more` : first;
}

/** A peer as rules ask for it. */
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
