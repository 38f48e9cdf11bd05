import { expect } from 'chai';
import * as fc from 'fast-check';
import { grantFromScopes, DENY_ALL, sameGrant } from '../../src/core/grant.ts';
import { ANONYMOUS, type Peer } from '../../src/core/peer.ts';
import { parsePolicy, type Rule } from '../../src/core/policy.ts';
import type { PeerSpec, RuleSpec } from '../../src/core/policy-object.ts';
import { createPolicySet } from '../../src/core/policy-set.ts';
import { matchesText, createTextMatcher } from '../../src/core/text.ts';
import { RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const EVERY_RULE: RuleSpec = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };

function rulesOf(...rules: RuleSpec[]): readonly Rule[] {
  const { rules: parsed, errors } = parsePolicy({ rules });
  if (parsed === undefined) throw new Error(errors.join('; '));
  return parsed;
}

function mistakesOf(rule: RuleSpec): readonly string[] {
  return parsePolicy({ rules: [{ ...EVERY_RULE, ...rule }] }).errors ?? [];
}

function certificate(...uris: string[]): Peer {
  return { kind: 'certificate', uris, dnsNames: [] };
}

function named(...dnsNames: string[]): Peer {
  return { kind: 'certificate', uris: [], dnsNames };
}

function account(namespace: string, serviceAccount: string): Peer {
  return { kind: 'token', namespace, serviceAccount };
}

function admits(spec: PeerSpec, peer: Peer): boolean {
  return createPolicySet(rulesOf({ ...EVERY_RULE, peers: [spec] })).admits(peer);
}

describe('which peers a policy is about', () => {
  const ID = 'spiffe://example.org/ns/edge/sa/responder';

  for (const [pattern, ids, others] of [
    [ID, [ID], [`${ID}/x`, 'spiffe://example.org/ns/edge/sa', `${ID}er`]],
    [
      'spiffe://example.org/ns/*/sa/responder',
      [ID, 'spiffe://example.org/ns/core/sa/responder'],
      ['spiffe://example.org/ns/edge/x/sa/responder', 'spiffe://example.org/ns/sa/responder'],
    ],
    [
      'spiffe://example.org/ns/edge/**',
      [ID, 'spiffe://example.org/ns/edge/x', 'spiffe://example.org/ns/edge/a/b/c'],
      ['spiffe://example.org/ns/edge', 'spiffe://example.org/ns/edges/x', 'spiffe://example.com/ns/edge/x'],
    ],
    [
      'spiffe://example.org/**',
      [ID],
      ['spiffe://example.org', 'spiffe://example.org.evil.com/x', 'spiffe://evil.com/example.org/x'],
    ],
    ['spiffe://example.org', ['spiffe://example.org'], [ID]],
    ['spiffe://example.org/*/**', [ID, 'spiffe://example.org/a/b'], ['spiffe://example.org/a']],
  ] as const) {
    it(`spiffeID ${pattern}`, () => {
      for (const id of ids) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(true);
      for (const id of others) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(false);
    });
  }

  it('no other way to write an id, and no second URI beside it, passes for it', () => {
    const tricks = [
      'SPIFFE://example.org/ns/edge/sa/responder',
      'spiffe://EXAMPLE.org/ns/edge/sa/responder',
      'spiffe://example.org:443/ns/edge/sa/responder',
      'spiffe://user@example.org/ns/edge/sa/responder',
      'spiffe://example.org/ns/edge/sa/responder/',
      'spiffe://example.org/ns/edge/sa//responder',
      'spiffe://example.org/ns/edge/x/../sa/responder',
      'spiffe://example.org/ns/edge/sa/%72esponder',
      'spiffe://example.org/ns/edge/sa/responder?x',
      'spiffe://example.org/ns/edge/sa/responder#x',
      'spiffe://example.org/ns/*/sa/responder',
      'spiffe://example.org/**',
      '',
    ];
    for (const pattern of [ID, 'spiffe://example.org/ns/*/sa/responder', 'spiffe://example.org/**']) {
      for (const id of tricks) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate(ID, 'https://example.org/'))).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate('https://example.org/', ID))).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate())).to.equal(false);
      expect(admits({ spiffeID: pattern }, named(ID))).to.equal(false);
    }
  });

  it('dnsName: in any case, and *. for one whole label', () => {
    const peer = named('other.example.com', 'R-0.Edge.example.org');
    expect(admits({ dnsName: 'r-0.edge.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: 'R-0.EDGE.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: '*.edge.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: '*.example.org' }, peer)).to.equal(false);
    expect(admits({ dnsName: 'edge.example.org' }, peer)).to.equal(false);
    expect(admits({ dnsName: '*.edge.example.org' }, named('edge.example.org'))).to.equal(false);
  });

  it('dnsName: a certificate for a wildcard, or with what is not a DNS name, must not be empty', () => {
    for (const name of [
      '*.example.org',
      '.example.org',
      'a..example.org',
      'a.example.org.',
      '\u212a.example.org',
    ]) {
      expect(admits({ dnsName: '*.example.org' }, named(name)), name).to.equal(false);
    }
    // The Kelvin sign is a small k in lower case.
    expect(admits({ dnsName: 'k.example.org' }, named('\u212a.example.org'))).to.equal(false);
  });

  it('serviceAccount: namespace and name, or all of a namespace', () => {
    const one = { serviceAccount: { namespace: 'edge', name: 'responder' } };
    expect(admits(one, account('edge', 'responder'))).to.equal(true);
    expect(admits(one, account('core', 'responder'))).to.equal(false);
    expect(admits(one, account('edge', 'other'))).to.equal(false);
    const all = { serviceAccount: { namespace: 'edge', name: '*' } };
    expect(admits(all, account('edge', 'other'))).to.equal(true);
    expect(admits(all, account('edge-2', 'other'))).to.equal(false);
  });

  it('a peer that proves nothing is meant by `anybody` alone, and `anybody` means every peer', () => {
    const specs: PeerSpec[] = [
      { spiffeID: 'spiffe://example.org/**' },
      { dnsName: '*.example.org' },
      { serviceAccount: { namespace: 'edge', name: '*' } },
    ];
    for (const spec of specs) expect(admits(spec, ANONYMOUS)).to.equal(false);
    for (const peer of [ANONYMOUS, certificate(), account('a', 'b')])
      expect(admits({ any: true }, peer)).to.equal(true);
  });
});

describe('mistakes in a policy', () => {
  for (const [what, rule, mistake] of [
    ['no peer', { peers: [] }, /^spec\.rules\[0\]\.peers: must not be empty/],
    ['a peer of no kind', { peers: [{}] }, /peers\[0\]: must set exactly one of/],
    ['a peer of two kinds', { peers: [{ any: true, dnsName: 'a.b' }] }, /peers\[0\]: must set exactly one/],
    ['any: false', { peers: [{ any: false }] }, /peers\[0\]\.any: must be true/],
    [
      'a URL',
      { peers: [{ spiffeID: 'https://a/b' }] },
      /peers\[0\]\.spiffeID: "https.* must begin with spiffe/,
    ],
    [
      'a star in the trust domain',
      { peers: [{ spiffeID: 'spiffe://*.org/a' }] },
      /must not have a \* in the trust domain/,
    ],
    [
      'a star for the trust domain',
      { peers: [{ spiffeID: 'spiffe://*/a' }] },
      /must not have a \* in the trust domain/,
    ],
    ['half a segment', { peers: [{ spiffeID: 'spiffe://a/b*' }] }, /a misplaced \*/],
    ['** in the middle', { peers: [{ spiffeID: 'spiffe://a/**/b' }] }, /a misplaced \*/],
    ['a slash at the end', { peers: [{ spiffeID: 'spiffe://a/b/' }] }, /is not a SPIFFE ID/],
    ['capitals in the trust domain', { peers: [{ spiffeID: 'spiffe://A/b' }] }, /is not a SPIFFE ID/],
    [
      'a star inside a DNS name',
      { peers: [{ dnsName: 'a.*.org' }] },
      /peers\[0\]\.dnsName: "a\.\*\.org" is not a DNS name/,
    ],
    [
      'a namespace with a slash',
      { peers: [{ serviceAccount: { namespace: 'a/b', name: 'c' } }] },
      /serviceAccount\.namespace: "a\/b" is not a namespace name/,
    ],
    [
      'a pattern of accounts',
      { peers: [{ serviceAccount: { namespace: 'a', name: 'r-*' } }] },
      /serviceAccount\.name: "r-\*" is not a ServiceAccount name/,
    ],
    ['no reporter', { reporters: { ids: [] } }, /reporters\.ids: must not be empty/],
    ['an empty reporter id', { reporters: { ids: [''] } }, /reporters\.ids\[0\]: must not be empty/],
    ['a star in the middle', { tenants: ['ok', 'a*b'] }, /tenants\[1\]: "a\*b" has a misplaced \*/],
    ['two stars', { clusters: ['a**'] }, /clusters\[0\]: "a\*\*" has a misplaced \*/],
    ['no tenant', { tenants: [] }, /tenants: must not be empty/],
    ['half a tunnel', { limits: { tunnels: 0.5 } }, /limits\.tunnels: 0\.5 must be a whole number/],
    ['a burst without a rate', { limits: { reportsBurst: 3 } }, /limits\.reportsBurst: requires /],
  ] as const satisfies readonly [string, RuleSpec, RegExp][]) {
    it(`${what}: said with field and value`, () => {
      const mistakes = mistakesOf(rule);
      expect(mistakes).to.have.length(1);
      expect(mistakes[0]).to.match(mistake);
    });
  }

  it('are all told, and one refuses the whole policy', () => {
    const wrong: RuleSpec = { ...EVERY_RULE, tenants: ['a*b'], clusters: [''] };
    const { rules, errors } = parsePolicy({ rules: [EVERY_RULE, wrong] });
    expect(rules).to.equal(undefined);
    expect(errors).to.have.length(2);
    expect(errors?.[0]).to.match(/^spec\.rules\[1\]\.tenants\[0\]: /);
  });

  it('are found in whatever the API server lets through, and nothing is thrown', () => {
    const anyText = fc.oneof(fc.string(), fc.constantFrom('*', '**', '/', 'spiffe://', 'spiffe://a/*', 'a*'));
    const anyRule = fc.record({
      peers: fc.array(
        fc.record(
          {
            spiffeID: anyText,
            dnsName: anyText,
            serviceAccount: fc.record({ namespace: anyText, name: anyText }),
            any: fc.boolean(),
          },
          { requiredKeys: [] },
        ),
      ),
      reporters: fc.record({ ids: fc.array(anyText) }),
      tenants: fc.array(anyText),
      limits: fc.record({ tunnels: fc.double(), reportsPerSecond: fc.double() }, { requiredKeys: [] }),
    });
    let read = 0;
    fc.assert(
      fc.property(fc.array(anyRule), (rules) => {
        const parsed = parsePolicy({ rules });
        if (parsed.rules === undefined) expect(parsed.errors.length).to.be.greaterThan(0);
        else read += createPolicySet(parsed.rules).admits(ANONYMOUS) ? 1 : 0;
      }),
      { numRuns: 2000 },
    );
    expect(read).to.be.at.least(0);
  });
});

describe('what a reporter may report', () => {
  const place = (tenantID: string, clusterID = 'eu-1') => tunnel('n', { tenantID, clusterID });
  const permits = (rules: readonly Rule[], of = place('acme')): boolean => {
    const grant = createPolicySet(rules).grant(ANONYMOUS, RESPONDER);
    return grant !== undefined && grant.permits?.(of) !== false;
  };

  it('is asked of each rule as a whole: two halves of two rules allow nothing', () => {
    const rules = rulesOf(
      { ...EVERY_RULE, tenants: ['acme'], clusters: ['us-*'] },
      { ...EVERY_RULE, tenants: ['globex'], clusters: ['eu-*'] },
    );
    expect(permits(rules, place('acme', 'eu-1'))).to.equal(false);
    expect(permits(rules, place('acme', 'us-1'))).to.equal(true);
    expect(permits(rules, place('globex', 'eu-1'))).to.equal(true);
    expect(permits(rules, place('initech', 'eu-1'))).to.equal(false);
  });

  it('is what one of the rules allows', () => {
    const rules = rulesOf(
      { ...EVERY_RULE, tenants: ['acme'], clusters: ['us-1'] },
      { ...EVERY_RULE, tenants: ['a*'], clusters: ['eu-1'] },
    );
    expect(permits(rules, place('acme', 'eu-1'))).to.equal(true);
    expect(permits(rules, place('acme', 'us-1'))).to.equal(true);
    expect(permits(rules, place('abc', 'us-1'))).to.equal(false);
  });

  it("knows a cluster without its own tenant's scope, and not without another's", () => {
    const rules = rulesOf({ ...EVERY_RULE, clusters: ['eu-1'] });
    expect(permits(rules, place('acme', 'acme:eu-1'))).to.equal(true);
    expect(permits(rules, place('acme', 'globex:eu-1'))).to.equal(false);
  });

  it('is for the reporters of the rule alone, by id and by cluster', () => {
    const set = createPolicySet(
      rulesOf({ ...EVERY_RULE, reporters: { ids: ['responder-*'], clusters: ['', 'edge'] } }),
    );
    expect(set.grant(ANONYMOUS, { cluster: 'edge', id: 'responder-0' })).not.to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: '', id: 'responder-' })).not.to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: 'core', id: 'responder-0' })).to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: 'edge', id: 'Responder-0' })).to.equal(undefined);
  });

  it('is nothing where there is a policy without rules', () => {
    expect(createPolicySet([]).admits(ANONYMOUS)).to.equal(false);
    expect(createPolicySet([]).hasPolicies).to.equal(true);
    expect(DENY_ALL.permits?.(place('acme'))).to.equal(false);
  });

  it('need not be asked tunnel by tunnel where a rule allows all', () => {
    const [narrow, wide] = [{ ...EVERY_RULE, tenants: ['acme'] }, EVERY_RULE];
    expect(createPolicySet(rulesOf(narrow, wide)).grant(ANONYMOUS, RESPONDER)?.permits).to.equal(undefined);
  });

  it('has the widest of the limits, and none where a rule has none', () => {
    const few = { ...EVERY_RULE, limits: { tunnels: 10, reportsPerSecond: 1, reportsBurst: 20 } };
    const more = { ...EVERY_RULE, limits: { tunnels: 20, reportsPerSecond: 5 } };
    const limits = (...rules: RuleSpec[]) => createPolicySet(rulesOf(...rules)).grant(ANONYMOUS, RESPONDER);
    expect(limits(few, more)).to.deep.include({ tunnels: 20, rate: { perSecond: 5, burst: 20 } });
    expect(limits(few, EVERY_RULE)).to.deep.include({ tunnels: Infinity, rate: undefined });
  });

  it('is the same by the same rules, however often they are read', () => {
    const rule = { ...EVERY_RULE, tenants: ['acme'] };
    const grant = () => grantFromScopes(rulesOf(rule).map(({ scope }) => scope));
    expect(sameGrant(grant(), grant())).to.equal(true);
    expect(sameGrant(grant(), grantFromScopes(rulesOf(EVERY_RULE).map(({ scope }) => scope)))).to.equal(
      false,
    );
    expect(sameGrant(grant(), DENY_ALL)).to.equal(false);
  });

  it('for any patterns is what a plain look at each pattern says', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', ':'), maxLength: 4 });
    const pattern = fc.oneof(
      letters,
      letters.map((text) => `${text}*`),
    );
    fc.assert(
      fc.property(fc.array(pattern), letters, (patterns, text) => {
        const plain = patterns.some((one) =>
          one.endsWith('*') ? text.startsWith(one.slice(0, -1)) : text === one,
        );
        expect(matchesText(createTextMatcher(patterns), text)).to.equal(plain);
      }),
      { numRuns: 2000 },
    );
  });
});
