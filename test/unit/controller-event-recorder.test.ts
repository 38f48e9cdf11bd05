import { expect } from 'chai';
import { pino } from 'pino';
import { createEventRecorder } from '../../src/controller/event-recorder.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { OTHER_RESPONDER, RESPONDER } from '../support/sample-tunnels.ts';

const metrics = createMetrics();

describe('Events of reporters', () => {
  function scene(mayWrite = true) {
    const clock = new FakeClock();
    const sent: string[] = [];
    metrics.eventsDropped.reset();
    const events = createEventRecorder({
      api: {
        create({ name }, { reason }) {
          sent.push(`${reason} ${name}`);
          return Promise.reject(new Error('the API server is unreachable'));
        },
      },
      cache: {
        get: () => ({
          metadata: { name: 'r', uid: 'u', resourceVersion: '1' },
          spec: { id: 'r', cluster: '' },
        }),
      },
      fence: { canWrite: () => mayWrite },
      clock,
      metrics,
      log: pino({ level: 'silent' }),
    });
    const dropped = async (): Promise<number | undefined> =>
      (await metrics.eventsDropped.get()).values[0]?.value;
    return { clock, sent, events, dropped };
  }

  it('are sent up to ten at once per reporter and then one per minute; the others are counted', async () => {
    const { clock, sent, events, dropped } = scene();
    for (let times = 0; times < 25; times += 1) events.record(RESPONDER, 'connected', '');
    expect([sent.length, await dropped()]).to.deep.equal([10, 15]);
    events.record(OTHER_RESPONDER, 'disconnected', '');
    expect(sent.at(-1)).to.equal('Disconnected r');
    clock.advance(60_000);
    for (let times = 0; times < 3; times += 1) events.record(RESPONDER, 'connected', '');
    expect(sent).to.have.length(12);
    await flushEventLoop();
  });

  it('are limited to 50, then one per second, if a whole fleet reconnects', async () => {
    const { clock, sent, events } = scene();
    const all = Array.from({ length: 500 }, (_, index) => ({ cluster: '', id: `r-${index}` }));
    for (const reporter of all) events.record(reporter, 'connected', '');
    expect(sent).to.have.length(50);
    clock.advance(5000);
    for (const reporter of all) events.record(reporter, 'connected', '');
    expect(sent).to.have.length(55);
    await flushEventLoop();
  });

  it('are not sent by a fenced replica', () => {
    const { sent, events } = scene(false);
    events.record(RESPONDER, 'conflict', '');
    expect(sent).to.deep.equal([]);
  });
});
