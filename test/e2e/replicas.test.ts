import { expect } from 'chai';
import { LEADER_LEASE } from '../../src/k8s/lease.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';
import { createReplicas, type Replicas } from '../support/replicas.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const DEADLINE_MS = 120_000;

describe('three replicas behind a load balancer', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;

  beforeEach(async () => {
    replicas = await createReplicas(controlPlane(), 'replicas');
  });
  afterEach(() => replicas.stop());

  it('releases the leader Lease on SIGTERM, so that another replica leads long before it would expire', async function () {
    this.timeout(DEADLINE_MS);
    for (let i = 0; i < 3; i += 1) await replicas.start();
    const leader = await replicas.waitForLeader(60_000);
    const startMs = performance.now();
    const ended = replicas.end(leader, 'SIGTERM');
    await poll(30_000, async () => {
      const holder = await replicas.leader();
      return holder !== '' && holder !== leader.process.replica ? true : undefined;
    });
    const leadingMs = performance.now() - startMs;
    await ended;
    const writes = (await replicas.writes()).filter(({ name }) => name === LEADER_LEASE);
    const released = writes.findLastIndex(({ account }) => account === leader.account);
    const gapMs = (writes[released + 1]?.atMs ?? Number.NaN) - (writes[released]?.atMs ?? Number.NaN);
    reportMeasurement(`new leader after ${Math.round(leadingMs)} ms, ${gapMs} ms after the release`);
    // A Lease that is not released can be acquired when it has not been renewed for 15 s.
    expect(gapMs).to.be.lessThan(15_000);
  });
});
