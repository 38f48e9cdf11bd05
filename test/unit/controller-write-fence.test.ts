import { expect } from 'chai';
import { LeaseWriteFence } from '../../src/controller/write-fence.ts';

describe('a replica may write', () => {
  function scene() {
    const state = { held: false, begun: 0, complete: 0, relists: 0, opened: 0 };
    const standing = new LeaseWriteFence({
      self: 'me',
      lease: {
        get isHeld() {
          return state.held;
        },
      },
      replicas: { isAlive: () => false, isServing: () => false },
      cache: {
        get nextList() {
          return state.begun + 1;
        },
        get completeList() {
          return state.complete;
        },
      },
      reflector: {
        relist() {
          state.relists += 1;
        },
      },
    });
    standing.addEventHandler({
      onWritable() {
        state.opened += 1;
      },
    });
    return { state, standing };
  }

  it('from its first Lease on, and not while it does not hold it', () => {
    const { state, standing } = scene();
    expect(standing.canWrite()).to.equal(false);
    state.held = true;
    standing.onAcquired();
    expect([standing.canWrite(), state.relists, state.opened]).to.deep.equal([true, 0, 1]);
    state.held = false;
    expect([standing.canWrite(), standing.isAlive('me')]).to.deep.equal([false, false]);
  });

  it('again only once a list is complete that began after the Lease was regained', () => {
    const { state, standing } = scene();
    state.held = true;
    standing.onAcquired();
    // One is under way already.
    state.begun = 5;
    state.complete = 4;
    standing.onAcquired();
    expect([standing.canWrite(), state.relists]).to.deep.equal([false, 1]);
    state.complete = 5;
    standing.onListed();
    expect([standing.canWrite(), state.opened]).to.deep.equal([false, 1]);
    state.begun = 6;
    state.complete = 6;
    standing.onListed();
    expect([standing.canWrite(), state.opened]).to.deep.equal([true, 2]);
  });
});
