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

function errorsOf(rule: RuleSpec): readonly string[] {
  return parsePolicy({ rules: [{ ...EVERY_RULE, ...rule }] }).errors ?? [];
}

function certificate(...uris: string[]): Peer {
  return { kind: 'certificate', uris, dnsNames: [] };
}

function certificateForDns(...dnsNames: string[]): Peer {
  return { kind: 'certificate', uris: [], dnsNames };
}

function account(namespace: string, serviceAccount: string): Peer {
  return { kind: 'token', namespace, serviceAccount };
}

function admits(spec: PeerSpec, peer: Peer): boolean {
  return createPolicySet(rulesOf({ ...EVERY_RULE, peers: [spec] })).admits(peer);
}

describe('peers of a policy', () => {
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
    it(`match spiffeID ${pattern}`, () => {
      for (const id of ids) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(true);
      for (const id of others) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(false);
    });
  }

  it('do not match another spelling of an ID or a certificate with a second URI', () => {
    const spellings = [
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
      for (const id of spellings) expect(admits({ spiffeID: pattern }, certificate(id)), id).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate(ID, 'https://example.org/'))).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate('https://example.org/', ID))).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificate())).to.equal(false);
      expect(admits({ spiffeID: pattern }, certificateForDns(ID))).to.equal(false);
    }
  });

  it('match dnsName in any case, with *. for one whole label', () => {
    const peer = certificateForDns('other.example.com', 'R-0.Edge.example.org');
    expect(admits({ dnsName: 'r-0.edge.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: 'R-0.EDGE.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: '*.edge.example.org' }, peer)).to.equal(true);
    expect(admits({ dnsName: '*.example.org' }, peer)).to.equal(false);
    expect(admits({ dnsName: 'edge.example.org' }, peer)).to.equal(false);
    expect(admits({ dnsName: '*.edge.example.org' }, certificateForDns('edge.example.org'))).to.equal(false);
  });

  it('do not match dnsName with a wildcard certificate or an invalid DNS name', () => {
    for (const name of [
      '*.example.org',
      '.example.org',
      'a..example.org',
      'a.example.org.',
      '\u212a.example.org',
    ]) {
      expect(admits({ dnsName: '*.example.org' }, certificateForDns(name)), name).to.equal(false);
    }
    // The lower case of the Kelvin sign is a k.
    expect(admits({ dnsName: 'k.example.org' }, certificateForDns('\u212a.example.org'))).to.equal(false);
  });

  it('match serviceAccount by namespace and name, or all of a namespace', () => {
    const single = { serviceAccount: { namespace: 'edge', name: 'responder' } };
    expect(admits(single, account('edge', 'responder'))).to.equal(true);
    expect(admits(single, account('core', 'responder'))).to.equal(false);
    expect(admits(single, account('edge', 'other'))).to.equal(false);
    const all = { serviceAccount: { namespace: 'edge', name: '*' } };
    expect(admits(all, account('edge', 'other'))).to.equal(true);
    expect(admits(all, account('edge-2', 'other'))).to.equal(false);
  });

  it('match an anonymous peer only with `any`, which matches every peer', () => {
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

describe('policy errors', () => {
  for (const [what, rule, expected] of [
    ['a rule without peers', { peers: [] }, /^spec\.rules\[0\]\.peers: must not be empty/],
    ['a peer without a kind', { peers: [{}] }, /peers\[0\]: must set exactly one of/],
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
      'a star as the trust domain',
      { peers: [{ spiffeID: 'spiffe://*/a' }] },
      /must not have a \* in the trust domain/,
    ],
    ['a star in a segment', { peers: [{ spiffeID: 'spiffe://a/b*' }] }, /a misplaced \*/],
    ['** in the middle', { peers: [{ spiffeID: 'spiffe://a/**/b' }] }, /a misplaced \*/],
    ['a trailing slash', { peers: [{ spiffeID: 'spiffe://a/b/' }] }, /is not a SPIFFE ID/],
    ['upper case in the trust domain', { peers: [{ spiffeID: 'spiffe://A/b' }] }, /is not a SPIFFE ID/],
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
      'a pattern for accounts',
      { peers: [{ serviceAccount: { namespace: 'a', name: 'r-*' } }] },
      /serviceAccount\.name: "r-\*" is not a ServiceAccount name/,
    ],
    ['a rule without reporters', { reporters: { ids: [] } }, /reporters\.ids: must not be empty/],
    ['an empty reporter id', { reporters: { ids: [''] } }, /reporters\.ids\[0\]: must not be empty/],
    ['a star in the middle', { tenants: ['ok', 'a*b'] }, /tenants\[1\]: "a\*b" has a misplaced \*/],
    ['two stars', { clusters: ['a**'] }, /clusters\[0\]: "a\*\*" has a misplaced \*/],
    ['a rule without tenants', { tenants: [] }, /tenants: must not be empty/],
    ['a fractional limit', { limits: { tunnels: 0.5 } }, /limits\.tunnels: 0\.5 must be a whole number/],
    [
      'an unknown representation',
      // From a CRD whose schema was changed.
      { representation: 'Slices' as 'slices' },
      /^spec\.rules\[0\]\.representation: "Slices" must be objects or slices$/,
    ],
    ['a burst without a rate', { limits: { reportsBurst: 3 } }, /limits\.reportsBurst: requires /],
  ] as const satisfies readonly [string, RuleSpec, RegExp][]) {
    it(`name field and value for ${what}`, () => {
      const errors = errorsOf(rule);
      expect(errors).to.have.length(1);
      expect(errors[0]).to.match(expected);
    });
  }

  it('are all reported, and one makes the whole policy invalid', () => {
    const invalid: RuleSpec = { ...EVERY_RULE, tenants: ['a*b'], clusters: [''] };
    const { rules, errors } = parsePolicy({ rules: [EVERY_RULE, invalid] });
    expect(rules).to.equal(undefined);
    expect(errors).to.have.length(2);
    expect(errors?.[0]).to.match(/^spec\.rules\[1\]\.tenants\[0\]: /);
  });

  it('are found without exceptions in anything that the API server accepts', () => {
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
    let admitted = 0;
    fc.assert(
      fc.property(fc.array(anyRule), (rules) => {
        const parsed = parsePolicy({ rules });
        if (parsed.rules === undefined) expect(parsed.errors.length).to.be.greaterThan(0);
        else admitted += createPolicySet(parsed.rules).admits(ANONYMOUS) ? 1 : 0;
      }),
      { numRuns: 2000 },
    );
    expect(admitted).to.be.at.least(0);
  });
});

describe('grants of a policy set', () => {
  const tunnelOf = (tenantID: string, clusterID = 'eu-1') => tunnel('n', { tenantID, clusterID });
  const permits = (rules: readonly Rule[], of = tunnelOf('acme')): boolean => {
    const grant = createPolicySet(rules).grant(ANONYMOUS, RESPONDER);
    return grant !== undefined && grant.permits?.(of) !== false;
  };

  it('apply each rule as a whole: halves of two rules do not combine', () => {
    const rules = rulesOf(
      { ...EVERY_RULE, tenants: ['acme'], clusters: ['us-*'] },
      { ...EVERY_RULE, tenants: ['globex'], clusters: ['eu-*'] },
    );
    expect(permits(rules, tunnelOf('acme', 'eu-1'))).to.equal(false);
    expect(permits(rules, tunnelOf('acme', 'us-1'))).to.equal(true);
    expect(permits(rules, tunnelOf('globex', 'eu-1'))).to.equal(true);
    expect(permits(rules, tunnelOf('initech', 'eu-1'))).to.equal(false);
  });

  it('permit what any one rule permits', () => {
    const rules = rulesOf(
      { ...EVERY_RULE, tenants: ['acme'], clusters: ['us-1'] },
      { ...EVERY_RULE, tenants: ['a*'], clusters: ['eu-1'] },
    );
    expect(permits(rules, tunnelOf('acme', 'eu-1'))).to.equal(true);
    expect(permits(rules, tunnelOf('acme', 'us-1'))).to.equal(true);
    expect(permits(rules, tunnelOf('abc', 'us-1'))).to.equal(false);
  });

  it('match a cluster without the prefix of its own tenant, not of another', () => {
    const rules = rulesOf({ ...EVERY_RULE, clusters: ['eu-1'] });
    expect(permits(rules, tunnelOf('acme', 'acme:eu-1'))).to.equal(true);
    expect(permits(rules, tunnelOf('acme', 'globex:eu-1'))).to.equal(false);
  });

  it('apply only to the reporters of the rule, by ID and by cluster', () => {
    const set = createPolicySet(
      rulesOf({ ...EVERY_RULE, reporters: { ids: ['responder-*'], clusters: ['', 'edge'] } }),
    );
    expect(set.grant(ANONYMOUS, { cluster: 'edge', id: 'responder-0' })).not.to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: '', id: 'responder-' })).not.to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: 'core', id: 'responder-0' })).to.equal(undefined);
    expect(set.grant(ANONYMOUS, { cluster: 'edge', id: 'Responder-0' })).to.equal(undefined);
  });

  it('permit nothing if a policy has no rules', () => {
    expect(createPolicySet([]).admits(ANONYMOUS)).to.equal(false);
    expect(createPolicySet([]).hasPolicies).to.equal(true);
    expect(DENY_ALL.permits?.(tunnelOf('acme'))).to.equal(false);
  });

  it('have no filter if a rule permits everything', () => {
    const [narrow, wide] = [{ ...EVERY_RULE, tenants: ['acme'] }, EVERY_RULE];
    expect(createPolicySet(rulesOf(narrow, wide)).grant(ANONYMOUS, RESPONDER)?.permits).to.equal(undefined);
  });

  it('have the widest limits, and no limit if one rule has none', () => {
    const few = { ...EVERY_RULE, limits: { tunnels: 10, reportsPerSecond: 1, reportsBurst: 20 } };
    const more = { ...EVERY_RULE, limits: { tunnels: 20, reportsPerSecond: 5 } };
    const limits = (...rules: RuleSpec[]) => createPolicySet(rulesOf(...rules)).grant(ANONYMOUS, RESPONDER);
    expect(limits(few, more)).to.deep.include({ tunnels: 20, rate: { perSecond: 5, burst: 20 } });
    expect(limits(few, EVERY_RULE)).to.deep.include({ tunnels: Infinity, rate: undefined });
  });

  for (const [what, rules, expected] of [
    ['undecided without a rule that decides it', [{}], [undefined, undefined]],
    ['that of the only rule', [{ representation: 'slices' }], ['slices', 'slices']],
    [
      'that of the rule for the tenant',
      [{ tenants: ['acme'], representation: 'slices' }],
      ['slices', undefined],
    ],
    ['not changed by a rule without one', [{ representation: 'slices' }, {}], ['slices', 'slices']],
    [
      'objects if rules disagree, in any order',
      [{ representation: 'slices' }, { tenants: ['acme'], representation: 'objects' }],
      ['objects', 'slices'],
    ],
    [
      'objects for one tenant of a fleet in slices',
      [{ tenants: ['acme'], representation: 'objects' }, { representation: 'slices' }],
      ['objects', 'slices'],
    ],
    [
      'that of the rule for the cluster, without the prefix of the tenant',
      [
        { clusters: ['eu-*'], representation: 'slices' },
        { clusters: ['us-1'], representation: 'objects' },
      ],
      ['slices', 'slices'],
    ],
  ] as const satisfies readonly [string, readonly Partial<RuleSpec>[], readonly unknown[]][]) {
    it(`have a representation that is ${what}`, () => {
      const set = createPolicySet(rulesOf(...rules.map((rule) => Object.assign({}, EVERY_RULE, rule))));
      const grant = set.grant(ANONYMOUS, RESPONDER);
      const given = ['acme', 'globex'].map((tenantID) =>
        grant?.representation?.(tunnelOf(tenantID, `${tenantID}:eu-1`)),
      );
      expect(given).to.deep.equal(expected);
    });
  }

  it('differ if only the representation does', () => {
    const grant = (representation?: 'objects' | 'slices') =>
      grantFromScopes(
        rulesOf({ ...EVERY_RULE, ...(representation && { representation }) }).map(({ scope }) => scope),
      );
    expect(sameGrant(grant('slices'), grant('slices'))).to.equal(true);
    expect(sameGrant(grant('slices'), grant('objects'))).to.equal(false);
    expect(sameGrant(grant('slices'), grant())).to.equal(false);
  });

  it('are equal for equal rules that were parsed twice', () => {
    const rule = { ...EVERY_RULE, tenants: ['acme'] };
    const grant = () => grantFromScopes(rulesOf(rule).map(({ scope }) => scope));
    expect(sameGrant(grant(), grant())).to.equal(true);
    expect(sameGrant(grant(), grantFromScopes(rulesOf(EVERY_RULE).map(({ scope }) => scope)))).to.equal(
      false,
    );
    expect(sameGrant(grant(), DENY_ALL)).to.equal(false);
  });

  it('match any patterns as a naive matcher does', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', ':'), maxLength: 4 });
    const pattern = fc.oneof(
      letters,
      letters.map((text) => `${text}*`),
    );
    fc.assert(
      fc.property(fc.array(pattern), letters, (patterns, text) => {
        const expected = patterns.some((pattern) =>
          pattern.endsWith('*') ? text.startsWith(pattern.slice(0, -1)) : text === pattern,
        );
        expect(matchesText(createTextMatcher(patterns), text)).to.equal(expected);
      }),
      { numRuns: 2000 },
    );
  });
});
