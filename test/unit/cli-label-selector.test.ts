import { expect } from 'chai';
import { parseLabelSelector } from '../../src/cli/label-selector.ts';

function matches(selector: string, labels: Readonly<Record<string, string>>): boolean {
  const parsed = parseLabelSelector(selector);
  if ('error' in parsed) throw new Error(parsed.error);
  return parsed.requirements.every(({ isMet }) => isMet(labels));
}

describe('a label selector of rt get', () => {
  const LABELS = { 'reverse-tunnel.io/tenant': 'acme', tier: 'web', rank: '7', empty: '' };

  const cases: readonly (readonly [selector: string, isMatch: boolean])[] = [
    ['', true],
    ['reverse-tunnel.io/tenant=acme', true],
    ['reverse-tunnel.io/tenant==acme', true],
    ['reverse-tunnel.io/tenant = acme', true],
    ['reverse-tunnel.io/tenant=zeta', false],
    ['reverse-tunnel.io/tenant!=zeta', true],
    ['reverse-tunnel.io/tenant!=acme', false],
    ['missing!=x', true],
    ['missing=x', false],
    ['tier in (db, web)', true],
    ['tier in (db)', false],
    ['tier in(web)', true],
    ['tier notin (db,web)', false],
    ['missing notin (a)', true],
    ['missing in (a)', false],
    ['tier', true],
    ['missing', false],
    ['!missing', true],
    ['! missing', true],
    ['!tier', false],
    ['empty=', true],
    ['tier=', false],
    ['rank>6', true],
    ['rank > 7', false],
    ['rank<8', true],
    ['tier>1', false],
    ['missing<1', false],
    ['tier=web,rank in (7,8),!missing', true],
    ['tier=web,missing', false],
    ['constructor', false],
    ['!constructor', true],
    ['constructor notin (a)', true],
  ];
  for (const [selector, isMatch] of cases) {
    it(`${JSON.stringify(selector)} ${isMatch ? 'matches' : 'does not match'}`, () => {
      expect(matches(selector, LABELS)).to.equal(isMatch);
    });
  }

  for (const selector of [
    'a=b,',
    ',',
    'a b',
    'a in b',
    'a in (b',
    'a=(b)',
    'a=b c',
    '=b',
    '!a=b',
    'a/b/c=d',
    '-a=b',
    'a=-b',
    `a=${'x'.repeat(64)}`,
    'a>b',
    'a in (b;c)',
  ]) {
    it(`${JSON.stringify(selector)} is rejected with the part that is not valid`, () => {
      const parsed = parseLabelSelector(selector);
      expect('error' in parsed ? parsed.error : 'accepted').to.match(
        /^cannot parse ".*"; must be a label selector such as a=b,c in \(d,e\),!f$/,
      );
    });
  }

  it('is split into requirements that the API server reads', () => {
    const parsed = parseLabelSelector('a=b , c in (d, e),!f');
    expect('requirements' in parsed && parsed.requirements.map(({ key, text }) => [key, text])).to.deep.equal(
      [
        ['a', 'a=b'],
        ['c', 'c in (d, e)'],
        ['f', '!f'],
      ],
    );
  });
});
