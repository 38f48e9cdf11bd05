import { expect } from 'chai';
import * as fc from 'fast-check';

import { Ownership, type Claim, type OwnershipAction } from '../../src/core/ownership.ts';
import type { ObservedReporter } from '../../src/core/reporter-object.ts';

const SPOKEN_AFTER_MS = 1000;

function seen(version: number, replica?: string, epoch = 1, connected = true, uid = 'u1'): ObservedReporter {
  return {
    uid,
    resourceVersion: String(version),
    owner: replica === undefined ? undefined : { replica, epoch },
    connected,
  };
}

function claimOf(decision: OwnershipAction): Claim {
  if (decision.type !== 'claim') throw new Error(`decides to ${decision.type}`);
  return decision.claim;
}

/** A replica `me` that has claimed a reporter that nobody had, at 0 ms. */
function owning(): Ownership {
  const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
  ownership.onObserved(seen(10), 0);
  ownership.onStreamOpened(0);
  ownership.onReport(0);
  const claim = claimOf(ownership.decide(0));
  expect(claim).to.deep.equal({ basis: seen(10), owner: { replica: 'me', epoch: 1 }, streaming: true });
  ownership.claimSent(claim);
  ownership.onObserved(seen(11, 'me'), 0);
  ownership.claimConfirmed(seen(11, 'me'), 0);
  return ownership;
}

describe('ownership of a reporter', () => {
  it('begins with the answer to the claim, and not before', () => {
    const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
    ownership.onStreamOpened(0);
    expect(ownership.decide(0).type).to.equal('wait');
    ownership.onReport(0);
    const claim = claimOf(ownership.decide(0));
    expect(claim.basis, 'there is no object yet').to.equal(undefined);
    ownership.claimSent(claim);
    ownership.onObserved(seen(10), 1);
    ownership.onObserved(seen(11, 'me'), 1);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([false, 'deny']);
    ownership.claimConfirmed(seen(11, 'me'), 1);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([true, 'allow']);
  });

  it('ends at once with anything else that the object says', () => {
    const others: [string, ObservedReporter | undefined][] = [
      ['another owner', seen(12, 'you', 2)],
      ['another owner with a lower epoch', seen(12, 'you', 0)],
      ['the same owner with another epoch', seen(12, 'me', 2)],
      ['no owner', seen(12)],
      ['another object', seen(12, 'me', 1, true, 'u2')],
      ['no object', undefined],
    ];
    for (const [what, after] of others) {
      const ownership = owning();
      ownership.onObserved(after, 10);
      expect(ownership.canWrite(), what).to.equal('deny');
    }
  });

  it('stays where only the status moved', () => {
    const ownership = owning();
    ownership.onObserved(seen(12, 'me', 1, false), 10);
    expect(ownership.canWrite()).to.equal('allow');
  });

  it('is claimed again at once where nobody else streams: object gone, owner without a stream, own late claim', () => {
    for (const after of [undefined, seen(12), seen(12, 'leader', 2, false), seen(12, 'me', 2)]) {
      const ownership = owning();
      ownership.onObserved(after, 10);
      expect(claimOf(ownership.decide(10)).basis).to.deep.equal(after);
    }
  });

  it('is claimed again from a live stream only when this one has spoken since, and ever more rarely', () => {
    const ownership = owning();
    let nowMs = 0;
    let version = 12;
    const waits: number[] = [];
    for (let times = 0; times < 12; times += 1) {
      ownership.onObserved(seen(version++, 'you', times + 2), nowMs);
      const lostMs = nowMs;
      while (ownership.decide(nowMs).type !== 'claim') {
        nowMs += 500;
        ownership.onReport(nowMs);
      }
      waits.push((nowMs - lostMs) / 1000);
      ownership.claimSent(claimOf(ownership.decide(nowMs)));
      ownership.onObserved(seen(version, 'me', times + 3), nowMs);
      ownership.claimConfirmed(seen(version++, 'me', times + 3), nowMs);
    }
    expect(waits).to.deep.equal([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
  });

  it('is claimed again by a stream that is open 45 s later, without a report', () => {
    const ownership = owning();
    ownership.onObserved(seen(12, 'you', 2), 10);
    expect(ownership.decide(11)).to.deep.equal({ type: 'wait', atMs: 45_010 });
    expect(ownership.decide(45_009).type).to.equal('wait');
    expect(ownership.decide(45_010).type).to.equal('claim');
  });

  it('is read, not guessed, after a conflict and after a time-out', () => {
    for (const found of [seen(12, 'you', 2), seen(12, 'you', 2, false), seen(10), undefined]) {
      const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
      ownership.onObserved(seen(10), 0);
      ownership.onStreamOpened(0);
      ownership.onReport(0);
      ownership.claimSent(claimOf(ownership.decide(0)));
      ownership.claimOutcomeUnknown();
      ownership.onObserved(found, 1);
      expect(ownership.decide(1).type).to.equal('read');
      ownership.readAnswered(found, ownership.readMark, 1, 2);
      expect(ownership.decide(2).type).to.equal(
        found?.connected === true && found.owner !== undefined ? 'wait' : 'claim',
      );
    }
  });

  it('by a claim that timed out and landed is claimed once more, and nothing is collected on its account', () => {
    const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
    ownership.onObserved(seen(10, 'you', 4), 0);
    ownership.onStreamOpened(0);
    ownership.onReport(0);
    ownership.claimSent(claimOf(ownership.decide(0)));
    ownership.claimOutcomeUnknown();
    ownership.readAnswered(seen(11, 'me', 5), ownership.readMark, 1, 2);
    expect(ownership.owns).to.equal(false);
    const again = claimOf(ownership.decide(2));
    expect(again.owner).to.deep.equal({ replica: 'me', epoch: 6 });
    ownership.claimSent(again);
    ownership.onObserved(seen(12, 'me', 6), 3);
    ownership.claimConfirmed(seen(12, 'me', 6), 3);
    expect([ownership.canWrite(), ownership.canDelete(4)]).to.deep.equal(['allow', 'deny']);
  });

  it('lets rows be collected once the stream has spoken again; of an unchanged owner at once', () => {
    const ownership = owning();
    expect(ownership.canDelete(999)).to.equal('deny');
    ownership.onReport(999);
    expect(ownership.canDelete(999), 'it may have been on its way').to.equal('deny');
    ownership.onReport(1000);
    expect(ownership.canDelete(1000)).to.equal('allow');
    ownership.onStreamOpened(2000);
    ownership.onReport(2000);
    const claim = claimOf(ownership.decide(2000));
    ownership.claimSent(claim);
    ownership.onObserved(seen(12, 'me', 2), 2001);
    ownership.claimConfirmed(seen(12, 'me', 2), 2001);
    expect(ownership.canDelete(2001)).to.equal('allow');
  });

  it('keeps a debt of speech over to the next stream of this replica', () => {
    const ownership = owning();
    ownership.onStreamOpened(500);
    ownership.onReport(500);
    ownership.claimSent(claimOf(ownership.decide(500)));
    ownership.onObserved(seen(12, 'me', 2), 501);
    ownership.claimConfirmed(seen(12, 'me', 2), 501);
    expect(ownership.canDelete(600)).to.equal('deny');
  });

  it('wants a fresh read, sent later, before it answers what somebody else did', () => {
    const ownership = owning();
    ownership.externalChange();
    expect(ownership.canWrite()).to.equal('verify');
    const mark = ownership.readMark;
    ownership.externalChange();
    ownership.readAnswered(seen(11, 'me'), mark, 5, 6);
    expect(ownership.canWrite(), 'it was sent before the second change was seen').to.equal('verify');
    ownership.readAnswered(seen(11, 'me'), ownership.readMark, 7, 8);
    expect(ownership.canWrite()).to.equal('allow');
    ownership.externalChange();
    ownership.readAnswered(seen(12, 'you', 2), ownership.readMark, 9, 10);
    expect(ownership.canWrite()).to.equal('deny');
  });

  it('stays in doubt after a read that was sent before the doubt arose', () => {
    const ownership = owning();
    const early = ownership.readMark;
    ownership.markUncertain();
    ownership.readAnswered(seen(11, 'me'), early, 1, 2);
    expect([ownership.owns, ownership.decide(3).type]).to.deep.equal([false, 'read']);
    ownership.readAnswered(seen(11, 'me'), ownership.readMark, 3, 4);
    expect([ownership.owns, ownership.canWrite()]).to.deep.equal([true, 'allow']);
  });

  it('is not claimed after a time-out by a read that was sent before the claim', () => {
    const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
    ownership.onObserved(seen(10), 0);
    const early = ownership.readMark;
    ownership.onStreamOpened(0);
    ownership.onReport(0);
    ownership.claimSent(claimOf(ownership.decide(0)));
    ownership.claimOutcomeUnknown();
    ownership.readAnswered(seen(10), early, 1, 2);
    expect(ownership.decide(3).type).to.equal('read');
  });

  it('lets rows expire within a second of a fresh read, and never beside a stream', () => {
    const ownership = owning();
    expect(ownership.canExpire(10, 1000)).to.equal('deny');
    ownership.onStreamClosed();
    expect(ownership.canExpire(10, 1000)).to.equal('verify');
    ownership.readAnswered(seen(11, 'me'), ownership.readMark, 20, 25);
    expect(ownership.canExpire(1019, 1000)).to.equal('allow');
    expect(ownership.canExpire(1020, 1000)).to.equal('verify');
  });

  it('is inherited from a dead owner, unless somebody was quicker or a stream came', () => {
    const heir = (): Ownership => {
      const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
      ownership.onObserved(seen(10, 'dead', 7), 0);
      ownership.takeOver();
      return ownership;
    };
    expect(claimOf(heir().decide(0))).to.deep.equal({
      basis: seen(10, 'dead', 7),
      owner: { replica: 'me', epoch: 8 },
      streaming: false,
    });
    const late = heir();
    late.onObserved(seen(11, 'you', 8), 1);
    expect(late.decide(1).type).to.equal('wait');
    expect(late.isIdle).to.equal(true);
    const served = heir();
    served.onStreamOpened(1);
    served.onReport(1);
    expect(claimOf(served.decide(1)).streaming).to.equal(true);
  });

  it('waits with a first claim where streams replace each other too often', () => {
    const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
    ownership.onStreamOpened(0, 4000);
    ownership.onReport(0);
    expect(ownership.decide(3999)).to.deep.equal({ type: 'wait', atMs: 4000 });
    expect(ownership.decide(4000).type).to.equal('claim');
  });

  it('is claimed in the end, though streams replace each other faster than the wait', () => {
    const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
    for (let nowMs = 0; nowMs < 64_000; nowMs += 2500) {
      ownership.onStreamOpened(nowMs, 64_000);
      ownership.onReport(nowMs);
      expect(ownership.decide(nowMs)).to.deep.equal({ type: 'wait', atMs: 64_000 });
    }
    ownership.onStreamOpened(65_000, 64_000);
    ownership.onReport(65_000);
    ownership.claimSent(claimOf(ownership.decide(65_000)));
    ownership.onObserved(seen(11, 'me'), 65_001);
    ownership.claimConfirmed(seen(11, 'me'), 65_001);
    ownership.onStreamOpened(66_000, 64_000);
    ownership.onReport(66_000);
    expect(ownership.decide(66_000), 'and the next claim has a wait of its own').to.deep.equal({
      type: 'wait',
      atMs: 130_000,
    });
  });
});

describe('ownership, whatever happens in whatever order', () => {
  const facts = fc.array(
    fc.oneof(
      fc.record({ is: fc.constantFrom('open', 'report', 'close', 'inherit', 'foreign', 'doubt') }),
      fc.record({
        is: fc.constant('claims'),
        by: fc.constantFrom('me', 'you', 'them'),
        connected: fc.boolean(),
      }),
      fc.record({ is: fc.constantFrom('gone', 'sees', 'touched') }),
      fc.record({ is: fc.constant('step'), answer: fc.constantFrom('ok', 'lost', 'conflict') }),
    ),
    { maxLength: 60 },
  );

  it('rows may be written only while the last confirmed claim is what the object said when last seen', () => {
    fc.assert(
      fc.property(facts, (steps) => {
        const ownership = new Ownership('me', () => SPOKEN_AFTER_MS);
        let version = 10;
        let uid = 0;
        let stored: ObservedReporter | undefined;
        let confirmed: ObservedReporter | undefined;
        let nowMs = 0;
        for (const step of steps) {
          nowMs += 400;
          version += 1;
          switch (step.is) {
            case 'open':
              ownership.onStreamOpened(nowMs);
              break;
            case 'report':
              ownership.onReport(nowMs);
              break;
            case 'close':
              ownership.onStreamClosed();
              break;
            case 'inherit':
              ownership.takeOver();
              break;
            case 'foreign':
              ownership.externalChange();
              break;
            case 'doubt':
              ownership.markUncertain();
              break;
            case 'gone':
              stored = undefined;
              break;
            case 'sees':
              ownership.onObserved(stored, nowMs);
              break;
            case 'touched':
              if (stored !== undefined) stored = { ...stored, resourceVersion: String(version) };
              break;
            case 'claims':
              if ('by' in step) stored = seen(version, step.by, version, step.connected, `u${uid}`);
              break;
            default: {
              const decision = ownership.decide(nowMs);
              if (decision.type === 'read') ownership.readAnswered(stored, ownership.readMark, nowMs, nowMs);
              if (decision.type !== 'claim') break;
              const { claim } = decision;
              ownership.claimSent(claim);
              if (claim.basis === undefined && stored === undefined) {
                uid += 1;
                stored = seen(version, undefined, 1, false, `u${uid}`);
              } else if (claim.basis?.resourceVersion !== stored?.resourceVersion) {
                ownership.claimOutcomeUnknown();
                break;
              }
              const answer = 'answer' in step ? step.answer : 'ok';
              if (answer === 'conflict') {
                ownership.claimOutcomeUnknown();
                break;
              }
              stored = seen(version, 'me', claim.owner.epoch, claim.streaming, `u${uid}`);
              if (answer === 'lost') {
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
