import { expect } from 'chai';
import * as fc from 'fast-check';
import { FairQuota, type Holder } from '../../src/grpc/fair-quota.ts';

interface Peer extends Holder {
  readonly name: string;
}

function peer(name: string, address = name): Peer {
  return { name, address };
}

/** A budget of 100, and who had to go, in order. */
function budget(): { budget: FairQuota<Peer>; gone: string[]; joined: (...peers: Peer[]) => void } {
  const gone: string[] = [];
  const made = new FairQuota<Peer>({ limit: 100, onExceeded: ({ name }) => void gone.push(name) });
  return {
    budget: made,
    gone,
    joined: (...peers) => {
      for (const one of peers) made.register(one);
    },
  };
}

describe('a budget that connections share', () => {
  it('lets one holder have half of it, and ends it beyond', () => {
    const { budget: shared, gone, joined } = budget();
    const a = peer('a');
    joined(a);
    shared.change(a, 50);
    expect(gone).to.deep.equal([]);
    shared.change(a, 1);
    expect(gone).to.deep.equal(['a']);
    expect(shared.total).to.equal(0);
  });

  it('ends the greatest holder when it is spent, not the one that asked last', () => {
    const { budget: shared, gone, joined } = budget();
    const [a, b, c] = [peer('a'), peer('b'), peer('c')];
    joined(a, b, c);
    shared.change(a, 40);
    shared.change(b, 45);
    shared.change(c, 16);
    expect(gone).to.deep.equal(['b']);
    expect(shared.total).to.equal(56);
  });

  it('ends a holder of the address that holds most, though another holds more by itself', () => {
    const { budget: shared, gone, joined } = budget();
    const honest = peer('honest', '10.0.0.1');
    const crowd = Array.from({ length: 10 }, (_, i) => peer(`crowd-${i}`, '10.0.0.2'));
    joined(honest, ...crowd);
    shared.change(honest, 30);
    for (const one of crowd) shared.change(one, 8);
    expect(gone.length).to.be.above(0);
    expect(gone.every((name) => name.startsWith('crowd'))).to.equal(true);
    expect(shared.total).to.be.at.most(100);
  });

  it('counts nothing of a holder that has left, nor of one that has been ended', () => {
    const { budget: shared, gone, joined } = budget();
    const [a, b] = [peer('a'), peer('b')];
    joined(a, b);
    shared.change(a, 30);
    shared.release(a);
    shared.change(a, 1000);
    shared.change(b, 51);
    shared.change(b, -51);
    expect(shared.total).to.equal(0);
    expect(gone).to.deep.equal(['b']);
  });

  it('is never exceeded, and never cuts an address that holds no more than its equal share', () => {
    const step = fc.record({ who: fc.nat(7), change: fc.integer({ min: 1, max: 30 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const peers = Array.from({ length: 8 }, (_, i) => peer(`p${i}`, `10.0.0.${i % 4}`));
        const held = new Map<Peer, number>();
        const shared = new FairQuota<Peer>({
          limit: 100,
          onExceeded(one) {
            const ofAddress = peers
              .filter(({ address }) => address === one.address)
              .reduce((sum, other) => sum + (held.get(other) ?? 0), 0);
            expect(ofAddress).to.be.above(25);
            held.delete(one);
          },
        });
        for (const one of peers) {
          shared.register(one);
          held.set(one, 0);
        }
        for (const { who, change } of steps) {
          const one = peers[who];
          const before = one && held.get(one);
          if (one === undefined || before === undefined) continue;
          held.set(one, before + change);
          shared.change(one, change);
          expect(shared.total).to.equal([...held.values()].reduce((sum, bytes) => sum + bytes, 0));
          expect(shared.total).to.be.at.most(100);
        }
      }),
    );
  });
});
