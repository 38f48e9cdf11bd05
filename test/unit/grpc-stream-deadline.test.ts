import { expect } from 'chai';
import { streamDeadline } from '../../src/grpc/stream-deadline.ts';

const HOUR_MS = 3_600_000;
const NOW_MS = Date.UTC(2026, 10, 23);

describe('the life of a stream', () => {
  for (const { random, ageMs } of [
    { random: 0, ageMs: 0.9 * HOUR_MS },
    { random: 0.5, ageMs: HOUR_MS },
    { random: 1, ageMs: 1.1 * HOUR_MS },
  ]) {
    it(`is the greatest age, a tenth less or more: ${ageMs} ms by the draw ${random}`, () => {
      const { ttlMs, reason } = streamDeadline(undefined, HOUR_MS, 0, NOW_MS, random);
      expect(ttlMs).to.be.closeTo(ageMs, 1);
      expect(reason).to.equal('max_age');
    });
  }

  it("ends with its peer's credential, without jitter, when that is sooner", () => {
    const { ttlMs, reason } = streamDeadline(NOW_MS + 60_000, HOUR_MS, 0, NOW_MS, 0);
    expect({ ttlMs, reason }).to.deep.equal({ ttlMs: 60_000, reason: 'credential_expired' });
    expect(streamDeadline(NOW_MS + 2 * HOUR_MS, HOUR_MS, 0, NOW_MS, 0.5).reason).to.equal('max_age');
  });

  it('counts from when its peer proved who it is, where that was before it was opened', () => {
    expect(streamDeadline(undefined, HOUR_MS, 600_000, NOW_MS, 0.5).ttlMs).to.be.closeTo(3_000_000, 1);
    expect(streamDeadline(undefined, HOUR_MS, HOUR_MS, NOW_MS, 0).ttlMs).to.equal(0);
  });

  it('is over at once for a credential that has ended between its check and now', () => {
    expect(streamDeadline(NOW_MS - 1, HOUR_MS, 0, NOW_MS, 0).ttlMs).to.equal(0);
  });
});
