import { expect } from 'chai';
import { StatusState } from '../../src/controller/status-state.ts';

const INPUTS = {
  synced: { reason: 'UpToDate' },
  conflict: false,
  flapping: undefined,
  disconnects: [],
} as const;
const WRITTEN_MS = 5000;

describe('the interval between writes of changed counts', () => {
  it('is 10 s', () => {
    const state = new StatusState();
    state.written(INPUTS, WRITTEN_MS);
    expect(state.countsDueMs).to.equal(WRITTEN_MS + 10_000);
  });
});

describe('the time of the next comparison while writes wait', () => {
  it('is 10 s after the last write or comparison', () => {
    const state = new StatusState();
    state.written(INPUTS, WRITTEN_MS);
    expect(state.compareDueMs(Infinity)).to.equal(WRITTEN_MS + 10_000);
    state.compared(WRITTEN_MS + 3000);
    expect(state.compareDueMs(Infinity)).to.equal(WRITTEN_MS + 13_000);
  });

  it('is earlier if the writes will have waited for long before that, but only once', () => {
    const state = new StatusState();
    state.written(INPUTS, WRITTEN_MS);
    expect(state.compareDueMs(WRITTEN_MS + 4000)).to.equal(WRITTEN_MS + 4000);
    state.compared(WRITTEN_MS + 4000);
    expect(state.compareDueMs(WRITTEN_MS + 4000)).to.equal(WRITTEN_MS + 14_000);
  });
});
