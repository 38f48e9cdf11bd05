import { expect } from 'chai';
import { pino } from 'pino';
import type { ReportIntake } from '../../src/controller/report-intake.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createReportingService } from '../faults/sim/reporting-service.ts';
import { SimCall, type SimStream } from '../faults/sim/report-stream.ts';
import { createHarness, NONE_REJECTED } from '../support/controller-harness.ts';
import type { FakeClock } from '../support/fake-clock.ts';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { firstReport } from '../support/reporting-server.ts';
import { fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import * as wire from '../support/wire.ts';

const TUNNELS = Array.from({ length: 5 }, (_, index) => tunnel(`node-${index}`));

/** Opens a stream of RESPONDER to a session that uses the intake; `onAck` is called when an ACK is written. */
function openSession(intake: ReportIntake, clock: FakeClock, onAck: () => void): SimCall {
  const service = createReportingService({
    sink: intake,
    reportIntervalMs: () => 5000,
    maxTunnelsPerReporter: 1000,
    onInvalid: 'skip',
    policy: {
      hasPolicies: false,
      peerRejection: () => undefined,
      reporterRejection: () => undefined,
      deniedTunnels: () => undefined,
      throttleDelayMs: () => 0,
      rateDebtMs: () => 0,
    },
    throttled: (_key, emit) => emit({}),
    throttledDenials: () => {},
    clock,
    log: pino({ level: 'silent' }),
    metrics: createMetrics(),
  });
  const call = new SimCall(onAck, () => {});
  service.accept({ call } as unknown as SimStream);
  return call;
}

describe('an accepted report', () => {
  it('is ACKed before the first request of a worker is sent', async () => {
    const harness = createHarness({ concurrency: 64 });
    await harness.start();
    const events: string[] = [];
    harness.api.before = ({ verb }) => void events.push(verb);
    const call = openSession(harness.intake, harness.clock, () => events.push('ack'));
    call.receive(firstReport(RESPONDER.id, wire.fullPush(3)));
    for (let turn = 0; turn < 100; turn += 1) await Promise.resolve();
    expect(events, 'in the tick of the report').to.deep.equal(['ack']);
    await harness.settle();
    expect(events).to.deep.equal(['ack', 'create', 'create', 'create']);
    call.receive(wire.requestBytes({ nonce: 2, removed_tunnel_names: [wire.tunnel('tunnel-0').name] }));
    await harness.settle();
    expect(events.slice(4)).to.deep.equal(['ack', 'delete']);
    harness.workers.stop();
  });

  it('is ACKed before the claim of its reporter is sent', async () => {
    const replicas = createMultiReplicaHarness();
    const { intake } = replicas.replica('a');
    const events: string[] = [];
    const { calls } = replicas.reporterApi;
    const call = openSession(intake, replicas.clock, () => events.push(`ack after ${calls.length} calls`));
    call.receive(firstReport(RESPONDER.id, wire.fullPush(3)));
    await replicas.settle();
    expect(events).to.deep.equal(['ack after 0 calls']);
    expect(calls.length).to.be.greaterThan(0);
    replicas.stop();
    await replicas.settle();
  });

  it('causes no request in the same tick, not even after all promises have settled', async () => {
    const harness = createHarness();
    await harness.start();
    harness.connect(RESPONDER);
    const report = { ...fullPush(...TUNNELS), ...NONE_REJECTED };
    expect(harness.intake.accept(RESPONDER, report, 0)).to.equal(undefined);
    for (let turn = 0; turn < 100; turn += 1) await Promise.resolve();
    expect(harness.api.calls).to.deep.equal([]);
    expect(harness.queue.depth).to.equal(TUNNELS.length);
    await harness.settle();
    expect(harness.api.calls.map(({ verb }) => verb)).to.deep.equal(TUNNELS.map(() => 'create'));
    harness.workers.stop();
  });
});

describe('a report over a limit', () => {
  it('changes nothing, and names the limit', async () => {
    const harness = createHarness({ maxTunnelsPerReporter: 4 });
    await harness.start();
    harness.connect(RESPONDER);
    const report = { ...fullPush(...TUNNELS), ...NONE_REJECTED };
    expect(harness.intake.accept(RESPONDER, report, 0)).to.deep.equal({
      limit: 'tunnelsPerReporter',
      count: 5,
      max: 4,
    });
    await harness.settle();
    expect(harness.api.calls).to.deep.equal([]);
    harness.workers.stop();
  });
});
