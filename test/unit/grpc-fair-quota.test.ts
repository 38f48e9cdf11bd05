import { expect } from 'chai';
import * as fc from 'fast-check';
import { FairQuota, type Holder } from '../../src/grpc/fair-quota.ts';

interface Peer extends Holder {
  readonly name: string;
}

function peer(name: string, address = name): Peer {
  return { name, address };
}

/** A quota of 100, and the names of the holders that were evicted, in order. */
function createQuota(): { quota: FairQuota<Peer>; evicted: string[]; register: (...peers: Peer[]) => void } {
  const evicted: string[] = [];
  const quota = new FairQuota<Peer>({ limit: 100, onExceeded: ({ name }) => void evicted.push(name) });
  return {
    quota,
    evicted,
    register: (...peers) => {
      for (const registered of peers) quota.register(registered);
    },
  };
}

describe('FairQuota', () => {
  it('lets a single holder use half of the limit, and evicts it beyond that', () => {
    const { quota, evicted, register } = createQuota();
    const a = peer('a');
    register(a);
    quota.change(a, 50);
    expect(evicted).to.deep.equal([]);
    quota.change(a, 1);
    expect(evicted).to.deep.equal(['a']);
    expect(quota.total).to.equal(0);
  });

  it('evicts the largest holder when the limit is exceeded, not the one that exceeded it', () => {
    const { quota, evicted, register } = createQuota();
    const [a, b, c] = [peer('a'), peer('b'), peer('c')];
    register(a, b, c);
    quota.change(a, 40);
    quota.change(b, 45);
    quota.change(c, 16);
    expect(evicted).to.deep.equal(['b']);
    expect(quota.total).to.equal(56);
  });

  it('evicts a holder of the address with the highest usage, even if another holder is larger', () => {
    const { quota, evicted, register } = createQuota();
    const honest = peer('honest', '10.0.0.1');
    const crowd = Array.from({ length: 10 }, (_, i) => peer(`crowd-${i}`, '10.0.0.2'));
    register(honest, ...crowd);
    quota.change(honest, 30);
    for (const member of crowd) quota.change(member, 8);
    expect(evicted.length).to.be.above(0);
    expect(evicted.every((name) => name.startsWith('crowd'))).to.equal(true);
    expect(quota.total).to.be.at.most(100);
  });

  it('does not count holders that were released or evicted', () => {
    const { quota, evicted, register } = createQuota();
    const [a, b] = [peer('a'), peer('b')];
    register(a, b);
    quota.change(a, 30);
    quota.release(a);
    quota.change(a, 1000);
    quota.change(b, 51);
    quota.change(b, -51);
    expect(quota.total).to.equal(0);
    expect(evicted).to.deep.equal(['b']);
  });

  it('is never exceeded, and never evicts from an address within its equal share', () => {
    const step = fc.record({ index: fc.nat(7), change: fc.integer({ min: 1, max: 30 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const peers = Array.from({ length: 8 }, (_, i) => peer(`p${i}`, `10.0.0.${i % 4}`));
        const usage = new Map<Peer, number>();
        const quota = new FairQuota<Peer>({
          limit: 100,
          onExceeded(evicted) {
            const ofAddress = peers
              .filter(({ address }) => address === evicted.address)
              .reduce((sum, holder) => sum + (usage.get(holder) ?? 0), 0);
            expect(ofAddress).to.be.above(25);
            usage.delete(evicted);
          },
        });
        for (const holder of peers) {
          quota.register(holder);
          usage.set(holder, 0);
        }
        for (const { index, change } of steps) {
          const holder = peers[index];
          const before = holder && usage.get(holder);
          if (holder === undefined || before === undefined) continue;
          usage.set(holder, before + change);
          quota.change(holder, change);
          expect(quota.total).to.equal([...usage.values()].reduce((sum, used) => sum + used, 0));
          expect(quota.total).to.be.at.most(100);
        }
      }),
    );
  });
});
