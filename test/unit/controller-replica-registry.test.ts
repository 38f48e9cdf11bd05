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
  // Any clock.
  const spec = { holderIdentity: holder, renewTime: `1999-01-01T00:00:0${renewals}.000000Z` };
  return { metadata, spec };
}

describe('replicas that are alive according to their Leases', () => {
  let clock: FakeClock;
  let directory: ReplicaRegistry;
  beforeEach(() => {
    clock = new FakeClock();
    directory = new ReplicaRegistry(names, clock);
  });

  it('are those that renewed within 15 s on the local clock, independent of the time in the Lease', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(14_999);
    expect(directory.isAlive('a')).to.equal(true);
    directory.event('MODIFIED', lease('a', 1));
    clock.advance(14_999);
    expect(directory.isAlive('a')).to.equal(true);
    clock.advance(1);
    expect(directory.isAlive('a')).to.equal(false);
    expect(directory.isAlive('unknown')).to.equal(false);
  });

  it('are not those named by an edited Lease, or by a Lease with another name', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(10_000);
    directory.event('MODIFIED', lease('a', 0, { label: 'touched' }));
    clock.advance(5000);
    expect(directory.isAlive('a')).to.equal(false);
    directory.event('ADDED', lease('b', 0, { name: 'somebodys-own' }));
    expect(directory.isAlive('b')).to.equal(false);
  });

  it('include, for the rest of 15 s, a replica that released its Lease, whose reporters are about to reconnect', () => {
    directory.event('ADDED', lease('a', 0));
    clock.advance(5000);
    directory.event('DELETED', lease('a', 0));
    expect([directory.isAlive('a'), directory.isServing('a')]).to.deep.equal([true, false]);
    clock.advance(10_000);
    expect(directory.isAlive('a')).to.equal(false);
  });

  it('leave Leases to delete one hour after their last renewal, and only Leases of replicas', () => {
    directory.event('ADDED', lease('a', 0));
    directory.event('ADDED', lease('leader', 0, { name: 'reverse-tunnel-operator-leader' }));
    directory.event('ADDED', lease('theirs', 0, { name: 'theirs' }));
    clock.advance(3_599_999);
    expect([...directory.expiredLeases()]).to.deep.equal([]);
    clock.advance(1);
    expect([...directory.expiredLeases()].map(({ metadata }) => metadata.name)).to.deep.equal([
      names.leaseName('a'),
    ]);
  });

  it('are updated by a list too, including deleted Leases', () => {
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
