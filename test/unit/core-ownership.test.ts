import { expect } from 'chai';
import * as fc from 'fast-check';

import { Ownership, type Claim, type OwnershipAction } from '../../src/core/ownership.ts';
import type { ObservedReporter } from '../../src/core/reporter-object.ts';

const FRESH_REPORT_AFTER_MS = 1000;

function observed(
  version: number,
  replica?: string,
  epoch = 1,
  connected = true,
  uid = 'u1',
): ObservedReporter {
  return {
    uid,
    resourceVersion: String(version),
    owner: replica === undefined ? undefined : { replica, epoch },
    connected,
  };
}

function claimOf(decision: OwnershipAction): Claim {
  if (decision.type !== 'claim') throw new Error(`unexpected action ${decision.type}`);
  return decision.claim;
}

/** Returns the ownership of a replica `me` whose claim of a reporter without an owner was confirmed at 0 ms. */
function owning(): Ownership {
  const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
  ownership.onObserved(observed(10), 0);
  ownership.onStreamOpened(0);
  ownership.onReport(0);
  const claim = claimOf(ownership.decide(0));
  expect(claim).to.deep.equal({ basis: observed(10), owner: { replica: 'me', epoch: 1 }, streaming: true });
  ownership.claimSent(claim);
  ownership.onObserved(observed(11, 'me'), 0);
  ownership.claimConfirmed(observed(11, 'me'), 0);
  return ownership;
}

describe('ownership', () => {
  it('begins when the claim is confirmed, and not before', () => {
    const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
    ownership.onStreamOpened(0);
    expect(ownership.decide(0).type).to.equal('wait');
    ownership.onReport(0);
    const claim = claimOf(ownership.decide(0));
    expect(claim.basis, 'there is no object yet').to.equal(undefined);
    ownership.claimSent(claim);
    ownership.onObserved(observed(10), 1);
    ownership.onObserved(observed(11, 'me'), 1);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([false, 'deny']);
    ownership.claimConfirmed(observed(11, 'me'), 1);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([true, 'allow']);
  });

  it('ends immediately if the object records anything else', () => {
    const others: [string, ObservedReporter | undefined][] = [
      ['another owner', observed(12, 'you', 2)],
      ['another owner with a lower epoch', observed(12, 'you', 0)],
      ['the same owner with another epoch', observed(12, 'me', 2)],
      ['no owner', observed(12)],
      ['another object', observed(12, 'me', 1, true, 'u2')],
      ['no object', undefined],
    ];
    for (const [what, after] of others) {
      const ownership = owning();
      ownership.onObserved(after, 10);
      expect(ownership.canWrite(), what).to.equal('deny');
    }
  });

  it('is kept if only the status changed', () => {
    const ownership = owning();
    ownership.onObserved(observed(12, 'me', 1, false), 10);
    expect(ownership.canWrite()).to.equal('allow');
  });

  it('is claimed again immediately if the object is missing, its owner has no stream or an own claim landed late', () => {
    for (const after of [undefined, observed(12), observed(12, 'leader', 2, false), observed(12, 'me', 2)]) {
      const ownership = owning();
      ownership.onObserved(after, 10);
      expect(claimOf(ownership.decide(10)).basis).to.deep.equal(after);
    }
  });

  it('is claimed again from a live stream only after a fresh report, with a growing delay', () => {
    const ownership = owning();
    let nowMs = 0;
    let version = 12;
    const delays: number[] = [];
    for (let round = 0; round < 12; round += 1) {
      ownership.onObserved(observed(version++, 'you', round + 2), nowMs);
      const supersededMs = nowMs;
      while (ownership.decide(nowMs).type !== 'claim') {
        nowMs += 500;
        ownership.onReport(nowMs);
      }
      delays.push((nowMs - supersededMs) / 1000);
      ownership.claimSent(claimOf(ownership.decide(nowMs)));
      ownership.onObserved(observed(version, 'me', round + 3), nowMs);
      ownership.claimConfirmed(observed(version++, 'me', round + 3), nowMs);
    }
    expect(delays).to.deep.equal([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });

  it('is claimed again by a stream that is still open after 45 s without a report', () => {
    const ownership = owning();
    ownership.onObserved(observed(12, 'you', 2), 10);
    expect(ownership.decide(11)).to.deep.equal({ type: 'wait', atMs: 45_010 });
    expect(ownership.decide(45_009).type).to.equal('wait');
    expect(ownership.decide(45_010).type).to.equal('claim');
  });

  it('requires a read after a conflict or a timeout', () => {
    for (const current of [observed(12, 'you', 2), observed(12, 'you', 2, false), observed(10), undefined]) {
      const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
      ownership.onObserved(observed(10), 0);
      ownership.onStreamOpened(0);
      ownership.onReport(0);
      ownership.claimSent(claimOf(ownership.decide(0)));
      ownership.claimOutcomeUnknown();
      ownership.onObserved(current, 1);
      expect(ownership.decide(1).type).to.equal('read');
      ownership.readAnswered(current, ownership.readMark, 1, 2);
      expect(ownership.decide(2).type).to.equal(
        current?.connected === true && current.owner !== undefined ? 'wait' : 'claim',
      );
    }
  });

  it('is claimed again after a claim that timed out but was applied, and allows no deletes yet', () => {
    const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
    ownership.onObserved(observed(10, 'you', 4), 0);
    ownership.onStreamOpened(0);
    ownership.onReport(0);
    ownership.claimSent(claimOf(ownership.decide(0)));
    ownership.claimOutcomeUnknown();
    ownership.readAnswered(observed(11, 'me', 5), ownership.readMark, 1, 2);
    expect(ownership.owns).to.equal(false);
    const again = claimOf(ownership.decide(2));
    expect(again.owner).to.deep.equal({ replica: 'me', epoch: 6 });
    ownership.claimSent(again);
    ownership.onObserved(observed(12, 'me', 6), 3);
    ownership.claimConfirmed(observed(12, 'me', 6), 3);
    expect([ownership.canWrite(), ownership.canDelete(4)]).to.deep.equal(['allow', 'deny']);
  });

  it('allows deletes after a fresh report, and immediately if the owner did not change', () => {
    const ownership = owning();
    expect(ownership.canDelete(999)).to.equal('deny');
    ownership.onReport(999);
    expect(ownership.canDelete(999), 'the report may have been sent before the claim').to.equal('deny');
    ownership.onReport(1000);
    expect(ownership.canDelete(1000)).to.equal('allow');
    ownership.onStreamOpened(2000);
    ownership.onReport(2000);
    const claim = claimOf(ownership.decide(2000));
    ownership.claimSent(claim);
    ownership.onObserved(observed(12, 'me', 2), 2001);
    ownership.claimConfirmed(observed(12, 'me', 2), 2001);
    expect(ownership.canDelete(2001)).to.equal('allow');
  });

  it('carries a missing fresh report over to the next stream', () => {
    const ownership = owning();
    ownership.onStreamOpened(500);
    ownership.onReport(500);
    ownership.claimSent(claimOf(ownership.decide(500)));
    ownership.onObserved(observed(12, 'me', 2), 501);
    ownership.claimConfirmed(observed(12, 'me', 2), 501);
    expect(ownership.canDelete(600)).to.equal('deny');
  });

  it('requires a live read, sent after an external change, before the next write', () => {
    const ownership = owning();
    ownership.externalChange();
    expect(ownership.canWrite()).to.equal('verify');
    const mark = ownership.readMark;
    ownership.externalChange();
    ownership.readAnswered(observed(11, 'me'), mark, 5, 6);
    expect(ownership.canWrite(), 'the read was sent before the second change').to.equal('verify');
    ownership.readAnswered(observed(11, 'me'), ownership.readMark, 7, 8);
    expect(ownership.canWrite()).to.equal('allow');
    ownership.externalChange();
    ownership.readAnswered(observed(12, 'you', 2), ownership.readMark, 9, 10);
    expect(ownership.canWrite()).to.equal('deny');
  });

  it('stays uncertain after a read that was sent before the uncertain write', () => {
    const ownership = owning();
    const early = ownership.readMark;
    ownership.markUncertain();
    ownership.readAnswered(observed(11, 'me'), early, 1, 2);
    expect([ownership.owns, ownership.decide(3).type]).to.deep.equal([false, 'read']);
    ownership.readAnswered(observed(11, 'me'), ownership.readMark, 3, 4);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([true, 'allow']);
  });

  it('is not claimed after a timeout based on a read that was sent before the claim', () => {
    const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
    ownership.onObserved(observed(10), 0);
    const early = ownership.readMark;
    ownership.onStreamOpened(0);
    ownership.onReport(0);
    ownership.claimSent(claimOf(ownership.decide(0)));
    ownership.claimOutcomeUnknown();
    ownership.readAnswered(observed(10), early, 1, 2);
    expect(ownership.decide(3).type).to.equal('read');
  });

  it('allows expiry deletes within a second of a live read, and never with a stream', () => {
    const ownership = owning();
    expect(ownership.canExpire(10, 1000)).to.equal('deny');
    ownership.onStreamClosed();
    expect(ownership.canExpire(10, 1000)).to.equal('verify');
    ownership.readAnswered(observed(11, 'me'), ownership.readMark, 20, 25);
    expect(ownership.canExpire(1019, 1000)).to.equal('allow');
    expect(ownership.canExpire(1020, 1000)).to.equal('verify');
  });

  it('is taken over from a dead owner unless another replica or a stream claims first', () => {
    const takingOver = (): Ownership => {
      const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
      ownership.onObserved(observed(10, 'dead', 7), 0);
      ownership.takeOver();
      return ownership;
    };
    expect(claimOf(takingOver().decide(0))).to.deep.equal({
      basis: observed(10, 'dead', 7),
      owner: { replica: 'me', epoch: 8 },
      streaming: false,
    });
    const late = takingOver();
    late.onObserved(observed(11, 'you', 8), 1);
    expect(late.decide(1).type).to.equal('wait');
    expect(late.isIdle).to.equal(true);
    const served = takingOver();
    served.onStreamOpened(1);
    served.onReport(1);
    expect(claimOf(served.decide(1)).streaming).to.equal(true);
  });

  it('delays the first claim if streams replace each other too often', () => {
    const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
    ownership.onStreamOpened(0, 4000);
    ownership.onReport(0);
    expect(ownership.decide(3999)).to.deep.equal({ type: 'wait', atMs: 4000 });
    expect(ownership.decide(4000).type).to.equal('claim');
  });

  it('is eventually claimed even if streams replace each other faster than the delay', () => {
    const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
    for (let nowMs = 0; nowMs < 64_000; nowMs += 2500) {
      ownership.onStreamOpened(nowMs, 64_000);
      ownership.onReport(nowMs);
      expect(ownership.decide(nowMs)).to.deep.equal({ type: 'wait', atMs: 64_000 });
    }
    ownership.onStreamOpened(65_000, 64_000);
    ownership.onReport(65_000);
    ownership.claimSent(claimOf(ownership.decide(65_000)));
    ownership.onObserved(observed(11, 'me'), 65_001);
    ownership.claimConfirmed(observed(11, 'me'), 65_001);
    ownership.onStreamOpened(66_000, 64_000);
    ownership.onReport(66_000);
    expect(ownership.decide(66_000), 'the next claim has its own delay').to.deep.equal({
      type: 'wait',
      atMs: 130_000,
    });
  });
});

describe('ownership after any events in any order', () => {
  const events = fc.array(
    fc.oneof(
      fc.record({
        type: fc.constantFrom('open', 'report', 'close', 'takeOver', 'externalChange', 'uncertain'),
      }),
      fc.record({
        type: fc.constant('otherClaim'),
        by: fc.constantFrom('me', 'you', 'them'),
        connected: fc.boolean(),
      }),
      fc.record({ type: fc.constantFrom('deleted', 'observed', 'modified') }),
      fc.record({ type: fc.constant('step'), answer: fc.constantFrom('ok', 'responseLost', 'conflict') }),
    ),
    { maxLength: 60 },
  );

  it('allows writes only while the observed object records the last confirmed claim', () => {
    fc.assert(
      fc.property(events, (steps) => {
        const ownership = new Ownership('me', () => FRESH_REPORT_AFTER_MS);
        let version = 10;
        let uid = 0;
        let stored: ObservedReporter | undefined;
        let confirmed: ObservedReporter | undefined;
        let nowMs = 0;
        for (const step of steps) {
          nowMs += 400;
          version += 1;
          switch (step.type) {
            case 'open':
              ownership.onStreamOpened(nowMs);
              break;
            case 'report':
              ownership.onReport(nowMs);
              break;
            case 'close':
              ownership.onStreamClosed();
              break;
            case 'takeOver':
              ownership.takeOver();
              break;
            case 'externalChange':
              ownership.externalChange();
              break;
            case 'uncertain':
              ownership.markUncertain();
              break;
            case 'deleted':
              stored = undefined;
              break;
            case 'observed':
              ownership.onObserved(stored, nowMs);
              break;
            case 'modified':
              if (stored !== undefined) stored = { ...stored, resourceVersion: String(version) };
              break;
            case 'otherClaim':
              if ('by' in step) stored = observed(version, step.by, version, step.connected, `u${uid}`);
              break;
            default: {
              const decision = ownership.decide(nowMs);
              if (decision.type === 'read') ownership.readAnswered(stored, ownership.readMark, nowMs, nowMs);
              if (decision.type !== 'claim') break;
              const { claim } = decision;
              ownership.claimSent(claim);
              if (claim.basis === undefined && stored === undefined) {
                uid += 1;
                stored = observed(version, undefined, 1, false, `u${uid}`);
              } else if (claim.basis?.resourceVersion !== stored?.resourceVersion) {
                ownership.claimOutcomeUnknown();
                break;
              }
              const answer = 'answer' in step ? step.answer : 'ok';
              if (answer === 'conflict') {
                ownership.claimOutcomeUnknown();
                break;
              }
              stored = observed(version, 'me', claim.owner.epoch, claim.streaming, `u${uid}`);
              if (answer === 'responseLost') {
                ownership.claimOutcomeUnknown();
                break;
              }
              confirmed = stored;
              ownership.onObserved(stored, nowMs);
              ownership.claimConfirmed(stored, nowMs);
            }
          }
          if (!ownership.owns) continue;
          expect(ownership.observed?.uid).to.equal(confirmed?.uid);
          expect(ownership.observed?.owner).to.deep.equal(confirmed?.owner);
          expect(confirmed?.owner?.replica).to.equal('me');
        }
      }),
      { numRuns: 2000 },
    );
  });
});
