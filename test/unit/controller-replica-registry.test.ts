import { expect } from 'chai';
import { ReplicaRegistry, type ObservedLease } from '../../src/controller/replica-registry.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { names } from '../support/sample-tunnels.ts';

const LABELS = { 'app.kubernetes.io/managed-by': 'reverse-tunnel-operator' };

function lease(
  holder: string,
  renewals: number,
  parts: { name?: string; label?: string } = {},
): ObservedLease {
  const metadata = {
    name: parts.name ?? names.leaseName(holder),
    uid: `uid of ${holder}`,
    resourceVersion: String(100 + renewals),
    labels: { ...LABELS, ...(parts.label === undefined ? {} : { theirs: parts.label }) },
  };
  // Whatever clock wrote it.
  const spec = { holderIdentity: holder, renewTime: `1999-01-01T00:00:0${renewals}.000000Z` };
  return { metadata, spec };
}

describe('who lives, by the Leases', () => {
  let clock: FakeClock;
  let directory: ReplicaRegistry;
  beforeEach(() => {
    clock = new FakeClock();
    directory = new ReplicaRegistry(names, clock);
  });

  it('is who renewed within 15 s as seen here, whatever time stands in the Lease', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(14_999);
    expect(directory.isAlive('a')).to.equal(true);
    directory.event('MODIFIED', lease('a', 1));
    clock.advance(14_999);
    expect(directory.isAlive('a')).to.equal(true);
    clock.advance(1);
    expect(directory.isAlive('a')).to.equal(false);
    expect(directory.isAlive('nobody')).to.equal(false);
  });

  it('is not who is named by a Lease that somebody touched, or by one of another name', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(10_000);
    directory.event('MODIFIED', lease('a', 0, { label: 'touched' }));
    clock.advance(5000);
    expect(directory.isAlive('a')).to.equal(false);
    directory.event('ADDED', lease('b', 0, { name: 'somebodys-own' }));
    expect(directory.isAlive('b')).to.equal(false);
  });

  it('is for the rest of 15 s who has given its Lease up: its reporters are about to come back', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(5000);
    directory.event('DELETED', lease('a', 0));
    expect([directory.isAlive('a'), directory.isServing('a')]).to.deep.equal([true, false]);
    clock.advance(10_000);
    expect(directory.isAlive('a')).to.equal(false);
  });

  it('has Leases to delete an hour after their last sign, and those of replicas only', () => {
    directory.event('ADDED', lease('a', 0));
    directory.event('ADDED', lease('leader', 0, { name: 'reverse-tunnel-operator-leader' }));
    directory.event('ADDED', {
      ...lease('theirs', 0),
      metadata: { ...lease('theirs', 0).metadata, labels: {} },
    });
    clock.advance(3_599_999);
    expect([...directory.expiredLeases()]).to.deep.equal([]);
    clock.advance(1);
    expect([...directory.expiredLeases()].map(({ metadata }) => metadata.name)).to.deep.equal([
      names.leaseName('a'),
    ]);
  });

  it('is told by a list too, which says who is gone', () => {
    const seen: string[] = [];
    const name = names.leaseName('a');
    directory.addEventHandler(name, {
      onWatchEvent: (one) => seen.push(`${one === undefined ? 'gone' : 'there'} ${name}`),
    });
    directory.replaceBegin();
    directory.replaceItem(lease('a', 0));
    directory.replaceEnd();
    directory.replaceBegin();
    directory.replaceEnd();
    expect(seen).to.deep.equal([`there ${name}`, `gone ${name}`]);
  });
});
