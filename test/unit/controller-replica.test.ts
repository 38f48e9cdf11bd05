import { expect } from 'chai';

import { ReplicaDirectory, type LeaseSeen } from '../../src/controller/replica-directory.ts';
import { ReplicaStanding } from '../../src/controller/replica-standing.ts';
import { createReporterEvents } from '../../src/controller/reporter-events.ts';
import { CallSlots } from '../../src/controller/call-slots.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { settled } from '../support/fake-time.ts';
import { names, OTHER_RESPONDER, RESPONDER } from '../support/sample-tunnels.ts';

const LABELS = { 'app.kubernetes.io/managed-by': 'reverse-tunnel-operator' };

function lease(holder: string, renewals: number, parts: { name?: string; label?: string } = {}): LeaseSeen {
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
  let directory: ReplicaDirectory;
  beforeEach(() => {
    clock = new FakeClock();
    directory = new ReplicaDirectory(names, clock);
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
    expect([...directory.longDead()]).to.deep.equal([]);
    clock.advance(1);
    expect([...directory.longDead()].map(({ metadata }) => metadata.name)).to.deep.equal([
      names.leaseName('a'),
    ]);
  });

  it('is told by a list too, which says who is gone', () => {
    const seen: string[] = [];
    directory.onLease = (name, one) => seen.push(`${one === undefined ? 'gone' : 'there'} ${name}`);
    directory.replaceBegin();
    directory.replaceItem(lease('a', 0));
    directory.replaceEnd();
    directory.replaceBegin();
    directory.replaceEnd();
    expect(seen).to.deep.equal([`there ${names.leaseName('a')}`, `gone ${names.leaseName('a')}`]);
  });
});

describe('a replica may write', () => {
  function scene() {
    const state = { held: false, begun: 0, complete: 0, relists: 0, opened: 0 };
    const standing = new ReplicaStanding({
      self: 'me',
      isHeld: () => state.held,
      isAlive: () => false,
      isServing: () => false,
      cache: {
        get nextList() {
          return state.begun + 1;
        },
        get completeList() {
          return state.complete;
        },
      },
      relist: () => (state.relists += 1),
      onOpen: () => (state.opened += 1),
    });
    return { state, standing };
  }

  it('from its first Lease on, and not while it does not hold it', () => {
    const { state, standing } = scene();
    expect(standing.mayWrite()).to.equal(false);
    state.held = true;
    standing.leaseHeld();
    expect([standing.mayWrite(), state.relists, state.opened]).to.deep.equal([true, 0, 1]);
    state.held = false;
    expect([standing.mayWrite(), standing.isAlive('me')]).to.deep.equal([false, false]);
  });

  it('again only once a list is complete that began after the Lease was regained', () => {
    const { state, standing } = scene();
    state.held = true;
    standing.leaseHeld();
    // One is under way already.
    state.begun = 5;
    state.complete = 4;
    standing.leaseHeld();
    expect([standing.mayWrite(), state.relists]).to.deep.equal([false, 1]);
    state.complete = 5;
    standing.listed();
    expect([standing.mayWrite(), state.opened]).to.deep.equal([false, 1]);
    state.begun = 6;
    state.complete = 6;
    standing.listed();
    expect([standing.mayWrite(), state.opened]).to.deep.equal([true, 2]);
  });
});

describe('events about reporters', () => {
  function scene(mayWrite = true) {
    const clock = new FakeClock();
    const sent: string[] = [];
    let dropped = 0;
    const events = createReporterEvents({
      create: ({ name }, { reason }) => {
        sent.push(`${reason} ${name}`);
        return Promise.reject(new Error('the API server is away'));
      },
      cache: {
        get: () => ({
          metadata: { name: 'r', uid: 'u', resourceVersion: '1' },
          spec: { id: 'r', cluster: '' },
        }),
      },
      mayWrite: () => mayWrite,
      onDropped: () => (dropped += 1),
      onFailed: () => {},
      clock,
    });
    return { clock, sent, events, dropped: () => dropped };
  }

  it('are sent, ten of one reporter at once and then one a minute; the rest is counted', async () => {
    const { clock, sent, events, dropped } = scene();
    for (let times = 0; times < 25; times += 1) events.tell(RESPONDER, 'connected', '');
    expect([sent.length, dropped()]).to.deep.equal([10, 15]);
    events.tell(OTHER_RESPONDER, 'lost', '');
    expect(sent.at(-1)).to.equal('Lost r');
    clock.advance(60_000);
    for (let times = 0; times < 3; times += 1) events.tell(RESPONDER, 'connected', '');
    expect(sent).to.have.length(12);
    await settled();
  });

  it('of a fleet that comes back at once are 50, then one a second', async () => {
    const { clock, sent, events } = scene();
    const all = Array.from({ length: 500 }, (_, index) => ({ cluster: '', id: `r-${index}` }));
    for (const reporter of all) events.tell(reporter, 'connected', '');
    expect(sent).to.have.length(50);
    clock.advance(5000);
    for (const reporter of all) events.tell(reporter, 'connected', '');
    expect(sent).to.have.length(55);
    await settled();
  });

  it('are not sent by a replica that may not write', () => {
    const { sent, events } = scene(false);
    events.tell(RESPONDER, 'conflict', '');
    expect(sent).to.deep.equal([]);
  });
});

describe('calls about reporters', () => {
  it('are bounded, and urgent ones go first', async () => {
    const slots = new CallSlots(2);
    const begun: string[] = [];
    const ends: (() => void)[] = [];
    const call = (name: string, urgent: boolean): Promise<void> =>
      slots.run(urgent, () => {
        begun.push(name);
        return new Promise<void>((resolve) => ends.push(resolve));
      });
    const all = [call('a', false), call('b', false), call('c', false), call('claim', true)];
    await settled();
    expect(begun).to.deep.equal(['a', 'b']);
    ends.shift()?.();
    await settled();
    expect(begun).to.deep.equal(['a', 'b', 'claim']);
    while (ends.length > 0) {
      ends.shift()?.();
      await settled();
    }
    await Promise.all(all);
    expect(begun).to.deep.equal(['a', 'b', 'claim', 'c']);
  });
});
