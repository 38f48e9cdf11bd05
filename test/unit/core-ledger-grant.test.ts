import { expect } from 'chai';
import { ALLOW_ALL, DENY_ALL, type Grant } from '../../src/core/grant.ts';
import type { PriorState } from '../../src/core/apply-report.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const PERMITTED = tunnel('permitted');
const DENIED = tunnel('denied', { tenantID: 'globex' });
const NO_OBJECTS: PriorState = { size: 0, tunnel: () => undefined, tunnels: () => [] };
const ACME: Grant = { ...ALLOW_ALL, permits: ({ tenantID }) => tenantID === 'acme', scopes: [] };

describe('ledger with a restrictive grant', () => {
  let grant: Grant;
  let ledger: Ledger;
  beforeEach(() => {
    grant = ACME;
    ledger = new Ledger({ tunnelsPerReporter: 100 });
  });
  const stateOf = (name: string): string => ledger.tunnelState(KEY, name).state;

  it('stores denied tunnels and treats them as absent', () => {
    ledger.apply(RESPONDER, fullPush(PERMITTED, DENIED), NO_OBJECTS, grant);
    expect(stateOf('permitted')).to.equal('present');
    expect(stateOf('denied')).to.equal('absent');
    expect([ledger.tunnelCount(KEY), ledger.deniedCount(KEY)]).to.deep.equal([2, 1]);
    expect(ledger.firstDenied(KEY)).to.equal(DENIED);
  });

  it('returns the names that a changed grant permits or denies', () => {
    ledger.apply(RESPONDER, fullPush(PERMITTED, DENIED), NO_OBJECTS, grant);
    grant = ALLOW_ALL;
    expect(ledger.setGrant(KEY, grant)).to.deep.equal(['denied']);
    expect(stateOf('denied')).to.equal('present');
    expect(ledger.deniedCount(KEY)).to.equal(0);
    grant = DENY_ALL;
    expect(ledger.setGrant(KEY, grant)).to.have.members(['permitted', 'denied']);
    expect([stateOf('permitted'), stateOf('denied')]).to.deep.equal(['absent', 'absent']);
    expect(ledger.setGrant(KEY, grant), 'nothing changed').to.deep.equal([]);
  });

  it('counts denied tunnels through deltas and changes of identity', () => {
    ledger.apply(RESPONDER, fullPush(), NO_OBJECTS, grant);
    ledger.apply(RESPONDER, delta([PERMITTED, DENIED]), NO_OBJECTS, grant);
    expect(ledger.deniedCount(KEY)).to.equal(1);
    ledger.apply(
      RESPONDER,
      delta([
        { ...DENIED, tenantID: 'acme' },
        { ...PERMITTED, tenantID: 'globex' },
      ]),
      NO_OBJECTS,
      grant,
    );
    expect([stateOf('permitted'), stateOf('denied')]).to.deep.equal(['absent', 'present']);
    ledger.apply(RESPONDER, delta([], ['permitted', 'denied']), NO_OBJECTS, grant);
    expect([ledger.tunnelCount(KEY), ledger.deniedCount(KEY)]).to.deep.equal([0, 0]);
  });

  it('applies the grant to existing objects that the reporter has not reported', () => {
    // Objects that are listed only after the reporter's first delta.
    ledger.apply(RESPONDER, delta([PERMITTED]), NO_OBJECTS, grant);
    expect(ledger.tunnelState(KEY, 'other', tunnel('other')).state).to.equal('unknown');
    expect(ledger.tunnelState(KEY, 'denied', DENIED).state).to.equal('absent');
  });

  it('starts a delta from all existing objects, including denied ones', () => {
    ledger.apply(
      RESPONDER,
      delta([]),
      { size: 2, tunnel: () => undefined, tunnels: () => [PERMITTED, DENIED] },
      grant,
    );
    expect([stateOf('permitted'), stateOf('denied')]).to.deep.equal(['present', 'absent']);
  });

  it('applies the lower of both limits to all reported tunnels', () => {
    grant = { ...ACME, tunnels: 2 };
    ledger.apply(RESPONDER, fullPush(PERMITTED, DENIED), NO_OBJECTS, grant);
    expect(ledger.apply(RESPONDER, delta([tunnel('third')]), NO_OBJECTS, grant)).to.have.property('max', 2);
    grant = { ...ACME, tunnels: 1000 };
    const many = Array.from({ length: 101 }, (_, i) => tunnel(`n-${i}`));
    expect(ledger.apply(RESPONDER, fullPush(...many), NO_OBJECTS, grant)).to.have.property('max', 100);
  });

  it('ignores a grant for a reporter without a report', () => {
    expect(ledger.setGrant(KEY, grant)).to.deep.equal([]);
    expect(ledger.tunnelState(KEY, 'denied', DENIED).state).to.equal('unknown');
    expect([ledger.deniedCount(KEY), ledger.firstDenied(KEY)]).to.deep.equal([0, undefined]);
  });
});
