import { expect } from 'chai';
import { EVERYTHING, NOTHING, type Grant } from '../../src/core/grant.ts';
import { OverLimitError, type Earlier } from '../../src/core/fold.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const MINE = tunnel('mine');
const THEIRS = tunnel('theirs', { tenantID: 'globex' });
const NO_ROWS: Earlier = { tunnel: () => undefined, tunnels: () => [] };
const ACME: Grant = { ...EVERYTHING, permits: ({ tenantID }) => tenantID === 'acme', scopes: [] };

describe('a ledger whose reporter may not report everything', () => {
  let grant: Grant;
  let ledger: Ledger;
  beforeEach(() => {
    grant = ACME;
    ledger = new Ledger(100, () => grant);
  });
  const known = (name: string): string => ledger.known(KEY, name).is;

  it('holds what it may not report, and lets nobody know', () => {
    ledger.fold(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS);
    expect(known('mine')).to.equal('present');
    expect(known('theirs')).to.equal('absent');
    expect([ledger.tunnelCount(KEY), ledger.outsideCount(KEY)]).to.deep.equal([2, 1]);
    expect(ledger.firstOutside(KEY)).to.equal(THEIRS);
  });

  it('lets it be known once it may, and names what changed', () => {
    ledger.fold(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS);
    grant = EVERYTHING;
    expect(ledger.review(KEY)).to.deep.equal(['theirs']);
    expect(known('theirs')).to.equal('present');
    expect(ledger.outsideCount(KEY)).to.equal(0);
    grant = NOTHING;
    expect(ledger.review(KEY)).to.have.members(['mine', 'theirs']);
    expect([known('mine'), known('theirs')]).to.deep.equal(['absent', 'absent']);
    expect(ledger.review(KEY), 'nothing changed').to.deep.equal([]);
  });

  it('keeps count through deltas: come, gone, another identity under the name', () => {
    ledger.fold(RESPONDER, fullPush(), NO_ROWS);
    ledger.fold(RESPONDER, delta([MINE, THEIRS]), NO_ROWS);
    expect(ledger.outsideCount(KEY)).to.equal(1);
    ledger.fold(
      RESPONDER,
      delta([
        { ...THEIRS, tenantID: 'acme' },
        { ...MINE, tenantID: 'globex' },
      ]),
      NO_ROWS,
    );
    expect([known('mine'), known('theirs')]).to.deep.equal(['absent', 'present']);
    ledger.fold(RESPONDER, delta([], ['mine', 'theirs']), NO_ROWS);
    expect([ledger.tunnelCount(KEY), ledger.outsideCount(KEY)]).to.deep.equal([0, 0]);
  });

  it('knows rows from before by what they say, where the reporter has not spoken of them', () => {
    // Rows that are listed only after the reporter's first delta.
    ledger.fold(RESPONDER, delta([MINE]), NO_ROWS);
    expect(ledger.known(KEY, 'other', tunnel('other')).is).to.equal('unknown');
    expect(ledger.known(KEY, 'theirs', THEIRS).is).to.equal('absent');
  });

  it('takes rows from before for held, those that it may not report too', () => {
    ledger.fold(RESPONDER, delta([]), { tunnel: () => undefined, tunnels: () => [MINE, THEIRS] });
    expect([known('mine'), known('theirs')]).to.deep.equal(['present', 'absent']);
  });

  it('is held to the lesser of both limits, by what it reports and not by what it may', () => {
    grant = { ...ACME, tunnels: 2 };
    ledger.fold(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS);
    expect(() => ledger.fold(RESPONDER, delta([tunnel('third')]), NO_ROWS))
      .to.throw(OverLimitError)
      .with.property('limit', 2);
    grant = { ...ACME, tunnels: 1000 };
    const many = Array.from({ length: 101 }, (_, i) => tunnel(`n-${i}`));
    expect(() => ledger.fold(RESPONDER, fullPush(...many), NO_ROWS))
      .to.throw(OverLimitError)
      .with.property('limit', 100);
  });

  it('of which nothing is known is not known to hold anything', () => {
    expect(ledger.review(KEY)).to.deep.equal([]);
    expect(ledger.known(KEY, 'theirs', THEIRS).is).to.equal('unknown');
    expect([ledger.outsideCount(KEY), ledger.firstOutside(KEY)]).to.deep.equal([0, undefined]);
  });
});
