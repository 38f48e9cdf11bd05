import { expect } from 'chai';
import { isSuperset, ALLOW_ALL, grantFromScopes, DENY_ALL, type Grant } from '../../src/core/grant.ts';
import { parsePolicy } from '../../src/core/policy.ts';

/** Grants of rules for these tenants and clusters. */
function grant(...scopes: { tenants: string[]; clusters?: string[]; limits?: { tunnels: number } }[]): Grant {
  const rules = scopes.map(({ tenants, clusters = ['*'], limits = {} }) => ({
    peers: [{ any: true }],
    reporters: { ids: ['*'] },
    tenants,
    clusters,
    limits,
  }));
  return grantFromScopes((parsePolicy({ rules }).rules ?? expect.fail()).map(({ scope }) => scope));
}

describe('a grant covers another', () => {
  const cases: [title: string, wide: Grant, narrow: Grant, covers: boolean][] = [
    ['everything, anything', ALLOW_ALL, grant({ tenants: ['acme'] }), true],
    ['a star, everything', grant({ tenants: ['*'] }), ALLOW_ALL, true],
    ['anything, nothing', grant({ tenants: ['acme'] }), DENY_ALL, true],
    ['nothing, nothing', DENY_ALL, DENY_ALL, true],
    ['nothing, not something', DENY_ALL, grant({ tenants: ['acme'] }), false],
    ['one tenant, not everything', grant({ tenants: ['acme'] }), ALLOW_ALL, false],
    ['one tenant, not another', grant({ tenants: ['acme'] }), grant({ tenants: ['globex'] }), false],
    [
      'two tenants, one of them',
      grant({ tenants: ['acme', 'globex'] }),
      grant({ tenants: ['globex'] }),
      true,
    ],
    ['one tenant, not two', grant({ tenants: ['acme'] }), grant({ tenants: ['acme', 'globex'] }), false],
    ['a beginning, a longer text', grant({ tenants: ['ac*'] }), grant({ tenants: ['acme'] }), true],
    ['a beginning, a longer one', grant({ tenants: ['ac*'] }), grant({ tenants: ['acme*'] }), true],
    ['a beginning, itself', grant({ tenants: ['ac*'] }), grant({ tenants: ['ac*'] }), true],
    ['a beginning, not a shorter one', grant({ tenants: ['acme*'] }), grant({ tenants: ['ac*'] }), false],
    ['a text, not itself as a beginning', grant({ tenants: ['acme'] }), grant({ tenants: ['acme*'] }), false],
    ['a beginning, not every text', grant({ tenants: ['acme*'] }), grant({ tenants: ['*'] }), false],
    [
      'two rules, both of theirs, in another order and with other limits',
      grant({ tenants: ['acme'] }, { tenants: ['globex'], clusters: ['eu-*'], limits: { tunnels: 1 } }),
      grant({ tenants: ['globex'], clusters: ['eu-1'] }, { tenants: ['acme'] }),
      true,
    ],
    [
      'the tenants of one rule in the clusters of another, not',
      grant({ tenants: ['acme'], clusters: ['eu'] }, { tenants: ['globex'], clusters: ['us'] }),
      grant({ tenants: ['acme'], clusters: ['us'] }),
      false,
    ],
  ];
  for (const [title, wide, narrow, covers] of cases) {
    it(title, () => expect(isSuperset(wide, narrow)).to.equal(covers));
  }
});
