import { expect } from 'chai';
import { isSuperset, ALLOW_ALL, grantFromScopes, DENY_ALL, type Grant } from '../../src/core/grant.ts';
import { parsePolicy } from '../../src/core/policy.ts';

/** Returns the grant of rules for these tenants and clusters. */
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

describe('isSuperset', () => {
  const cases: [title: string, wide: Grant, narrow: Grant, covers: boolean][] = [
    ['everything and some tenant', ALLOW_ALL, grant({ tenants: ['acme'] }), true],
    ['* and everything', grant({ tenants: ['*'] }), ALLOW_ALL, true],
    ['some tenant and nothing', grant({ tenants: ['acme'] }), DENY_ALL, true],
    ['nothing and nothing', DENY_ALL, DENY_ALL, true],
    ['nothing and some tenant', DENY_ALL, grant({ tenants: ['acme'] }), false],
    ['one tenant and everything', grant({ tenants: ['acme'] }), ALLOW_ALL, false],
    ['one tenant and another', grant({ tenants: ['acme'] }), grant({ tenants: ['globex'] }), false],
    [
      'two tenants and one of them',
      grant({ tenants: ['acme', 'globex'] }),
      grant({ tenants: ['globex'] }),
      true,
    ],
    ['one tenant and two', grant({ tenants: ['acme'] }), grant({ tenants: ['acme', 'globex'] }), false],
    ['a prefix and a text with that prefix', grant({ tenants: ['ac*'] }), grant({ tenants: ['acme'] }), true],
    ['a prefix and a longer prefix', grant({ tenants: ['ac*'] }), grant({ tenants: ['acme*'] }), true],
    ['a prefix and itself', grant({ tenants: ['ac*'] }), grant({ tenants: ['ac*'] }), true],
    ['a prefix and a shorter prefix', grant({ tenants: ['acme*'] }), grant({ tenants: ['ac*'] }), false],
    [
      'a text and the same text as a prefix',
      grant({ tenants: ['acme'] }),
      grant({ tenants: ['acme*'] }),
      false,
    ],
    ['a prefix and *', grant({ tenants: ['acme*'] }), grant({ tenants: ['*'] }), false],
    [
      'two rules and narrower ones in another order with other limits',
      grant({ tenants: ['acme'] }, { tenants: ['globex'], clusters: ['eu-*'], limits: { tunnels: 1 } }),
      grant({ tenants: ['globex'], clusters: ['eu-1'] }, { tenants: ['acme'] }),
      true,
    ],
    [
      'two rules and the tenants of one in the clusters of the other',
      grant({ tenants: ['acme'], clusters: ['eu'] }, { tenants: ['globex'], clusters: ['us'] }),
      grant({ tenants: ['acme'], clusters: ['us'] }),
      false,
    ],
  ];
  for (const [title, wide, narrow, covers] of cases) {
    it(`${covers ? 'is true' : 'is false'} for ${title}`, () =>
      expect(isSuperset(wide, narrow)).to.equal(covers));
  }
});
