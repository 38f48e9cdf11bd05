import { expect } from 'chai';
import * as fc from 'fast-check';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import { decodeReport, type DecodedReport } from '../../src/grpc/decode.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { MemoryTunnelApi } from '../support/memory-tunnel-api.ts';
import { createHarness } from '../support/controller-harness.ts';
import { Model, violations, type ModelStream } from '../support/model.ts';
import { anyContent, anyReporter } from '../support/model-reports.ts';
import { createObjectChecker } from '../support/model-objects.ts';
import { assertHolds } from '../support/property-runs.ts';
import { requestBytes, tunnel, type RequestFields } from '../support/wire.ts';

interface Said {
  readonly reporter: { readonly cluster: string; readonly id: string };
  readonly content: RequestFields;
}

type Step =
  | ({ readonly do: 'report' | 'reconnect' } & Said)
  /** Writes go out; the watch does not show them yet. */
  | { readonly do: 'write' }
  | { readonly do: 'watch'; readonly events: number }
  /** Everything comes to rest; the rows must be right. */
  | { readonly do: 'settle' }
  /** The operator ends and starts; some reports come before it has listed the rows. */
  | { readonly do: 'restart' | 'crash'; readonly early: readonly Said[] };

const parts = { reporter: anyReporter, content: anyContent };
const said: fc.Arbitrary<Said> = fc.record(parts);
const report: fc.Arbitrary<Step> = fc.record({ do: fc.constant('report' as const), ...parts });
const reconnect: fc.Arbitrary<Step> = fc.record({ do: fc.constant('reconnect' as const), ...parts });
const again: fc.Arbitrary<Step> = fc.record({
  do: fc.constantFrom('restart' as const, 'crash' as const),
  early: fc.array(said, { maxLength: 3 }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: report },
  { weight: 2, arbitrary: reconnect },
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'write' }) },
  { weight: 2, arbitrary: fc.nat({ max: 4 }).map((events): Step => ({ do: 'watch', events })) },
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'settle' }) },
  { weight: 1, arbitrary: again },
);

/** So that the property is known to have had something to say. */
const seen = {
  reports: 0,
  refused: 0,
  setAside: 0,
  inBothLists: 0,
  restarts: 0,
  early: 0,
  checks: 0,
  rows: 0,
};

function decode(bytes: Buffer): DecodedReport {
  const work = decodeReport(bytes);
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

/** Gives one sequence to the model and to the operator's own parts, and compares. */
async function play(onInvalid: 'skip' | 'nack', steps: readonly Step[]): Promise<void> {
  const api = new MemoryTunnelApi();
  const model = new Model(onInvalid);
  const judge = createObjectChecker();
  const streams = new Map<string, ModelStream>();
  let world = createHarness({ api });
  await world.start();

  function report({ reporter, content }: Said): void {
    const key = JSON.stringify(reporter);
    const stream = streams.get(key) ?? model.open();
    streams.set(key, stream);
    const fields: RequestFields = { ...content, node: reporter, nonce: 1 };
    const answer = model.report(stream, fields);
    const decoded = decode(requestBytes(fields));
    expect(decoded.rejected.count).to.equal(violations(fields).length);
    seen.setAside += decoded.rejected.count;
    if (answer.kind === 'nack') {
      expect(decoded.rejected.first[0]?.field).to.equal(answer.field);
      streams.delete(key);
      seen.refused += 1;
      return;
    }
    world.report(reporter, decoded);
    seen.reports += 1;
    if (decoded.removedNames.some((name) => decoded.added.some((tunnel) => tunnel.name === name))) {
      seen.inBothLists += 1;
    }
  }

  async function check(): Promise<void> {
    await world.settle();
    const rows = [...api.stored.values()];
    judge(model.objects, rows);
    seen.checks += 1;
    seen.rows += rows.length;
  }

  async function restart(suddenly: boolean, early: readonly Said[]): Promise<void> {
    if (suddenly) {
      world.workers.stop();
      // Writes in flight cannot be called back.
      await flushEventLoop();
      model.restart([...api.stored.values()].map(modelRow));
    } else {
      await world.settle();
      world.workers.stop();
      model.restart();
    }
    streams.clear();
    world = createHarness({ api });
    for (const one of early) report(one);
    model.markListed();
    await world.start();
    seen.restarts += 1;
    seen.early += early.length;
  }

  for (const next of steps) {
    switch (next.do) {
      case 'reconnect':
        streams.delete(JSON.stringify(next.reporter));
        report(next);
        break;
      case 'report':
        report(next);
        break;
      case 'write':
        await flushEventLoop();
        break;
      case 'watch':
        api.deliver(world.cache, next.events);
        break;
      case 'settle':
        await check();
        break;
      case 'restart':
      case 'crash':
        await restart(next.do === 'crash', next.early);
    }
  }
  await check();
  world.workers.stop();
}

function modelRow({ spec }: TunnelObject) {
  const { tunnelName: name, tenantID, clusterID, nodeID, reporter, createdAt } = spec;
  return { cluster: reporter.cluster, id: reporter.id, name, tenantID, clusterID, nodeID, createdAt };
}

describe('reports, through decoder, ledger, mirror and reconciler', () => {
  it('leave the rows that the model says, whatever comes in whatever order', async function () {
    this.timeout(600_000);
    const property = fc.asyncProperty(
      fc.constantFrom('skip' as const, 'nack' as const),
      fc.array(step, { maxLength: 25, size: 'max' }),
      play,
    );
    const runs = await assertHolds(property, { runs: 1000, file: 'test/unit/model-objects.test.ts' });
    for (const [what, times] of Object.entries(seen))
      expect(times, what).to.be.at.least(Math.floor(runs / 20));
  });

  it('a heartbeat before the rows are listed does not keep a later flap from being counted from its row', async () => {
    const reporter = { cluster: 'edge', id: 'responder-0' };
    const at = (seconds: number): Said => ({
      reporter,
      content: { added_tunnels: [{ ...tunnel('node-1'), created_at: { seconds } }] },
    });
    const heartbeat: Said = { reporter, content: {} };
    await play('skip', [
      { do: 'report', ...at(1) },
      { do: 'restart', early: [heartbeat] },
      { do: 'report', reporter, content: { ...at(2).content, removed_tunnel_names: ['node-1'] } },
    ]);
  });
});
