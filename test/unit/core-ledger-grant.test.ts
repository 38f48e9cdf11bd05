import { expect } from 'chai';
import { ALLOW_ALL, DENY_ALL, type Grant } from '../../src/core/grant.ts';
import type { PriorState } from '../../src/core/apply-report.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const MINE = tunnel('mine');
const THEIRS = tunnel('theirs', { tenantID: 'globex' });
const NO_ROWS: PriorState = { tunnel: () => undefined, tunnels: () => [] };
const ACME: Grant = { ...ALLOW_ALL, permits: ({ tenantID }) => tenantID === 'acme', scopes: [] };

describe('a ledger whose reporter may not report everything', () => {
  let grant: Grant;
  let ledger: Ledger;
  beforeEach(() => {
    grant = ACME;
    ledger = new Ledger({ tunnelsPerReporter: 100 });
  });
  const known = (name: string): string => ledger.tunnelState(KEY, name).state;

  it('holds what it may not report, and lets nobody know', () => {
    ledger.apply(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS, grant);
    expect(known('mine')).to.equal('present');
    expect(known('theirs')).to.equal('absent');
    expect([ledger.tunnelCount(KEY), ledger.deniedCount(KEY)]).to.deep.equal([2, 1]);
    expect(ledger.firstDenied(KEY)).to.equal(THEIRS);
  });

  it('lets it be known once it may, and names what changed', () => {
    ledger.apply(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS, grant);
    grant = ALLOW_ALL;
    expect(ledger.setGrant(KEY, grant)).to.deep.equal(['theirs']);
    expect(known('theirs')).to.equal('present');
    expect(ledger.deniedCount(KEY)).to.equal(0);
    grant = DENY_ALL;
    expect(ledger.setGrant(KEY, grant)).to.have.members(['mine', 'theirs']);
    expect([known('mine'), known('theirs')]).to.deep.equal(['absent', 'absent']);
    expect(ledger.setGrant(KEY, grant), 'nothing changed').to.deep.equal([]);
  });

  it('keeps count through deltas: come, gone, another identity under the name', () => {
    ledger.apply(RESPONDER, fullPush(), NO_ROWS, grant);
    ledger.apply(RESPONDER, delta([MINE, THEIRS]), NO_ROWS, grant);
    expect(ledger.deniedCount(KEY)).to.equal(1);
    ledger.apply(
      RESPONDER,
      delta([
        { ...THEIRS, tenantID: 'acme' },
        { ...MINE, tenantID: 'globex' },
      ]),
      NO_ROWS,
      grant,
    );
    expect([known('mine'), known('theirs')]).to.deep.equal(['absent', 'present']);
    ledger.apply(RESPONDER, delta([], ['mine', 'theirs']), NO_ROWS, grant);
    expect([ledger.tunnelCount(KEY), ledger.deniedCount(KEY)]).to.deep.equal([0, 0]);
  });

  it('knows rows from before by what they say, where the reporter has not spoken of them', () => {
    // Rows that are listed only after the reporter's first delta.
    ledger.apply(RESPONDER, delta([MINE]), NO_ROWS, grant);
    expect(ledger.tunnelState(KEY, 'other', tunnel('other')).state).to.equal('unknown');
    expect(ledger.tunnelState(KEY, 'theirs', THEIRS).state).to.equal('absent');
  });

  it('takes rows from before for held, those that it may not report too', () => {
    ledger.apply(RESPONDER, delta([]), { tunnel: () => undefined, tunnels: () => [MINE, THEIRS] }, grant);
    expect([known('mine'), known('theirs')]).to.deep.equal(['present', 'absent']);
  });

  it('is held to the lesser of both limits, by what it reports and not by what it may', () => {
    grant = { ...ACME, tunnels: 2 };
    ledger.apply(RESPONDER, fullPush(MINE, THEIRS), NO_ROWS, grant);
    expect(ledger.apply(RESPONDER, delta([tunnel('third')]), NO_ROWS, grant)).to.have.property('max', 2);
    grant = { ...ACME, tunnels: 1000 };
    const many = Array.from({ length: 101 }, (_, i) => tunnel(`n-${i}`));
    expect(ledger.apply(RESPONDER, fullPush(...many), NO_ROWS, grant)).to.have.property('max', 100);
  });

  it('of which nothing is known is not known to hold anything', () => {
    expect(ledger.setGrant(KEY, grant)).to.deep.equal([]);
    expect(ledger.tunnelState(KEY, 'theirs', THEIRS).state).to.equal('unknown');
    expect([ledger.deniedCount(KEY), ledger.firstDenied(KEY)]).to.deep.equal([0, undefined]);
  });
});
