import { expect } from 'chai';
import * as fc from 'fast-check';
import { NO_REMOVAL_HOLD, type RemovalHoldRule } from '../../src/core/removal-hold.ts';
import { sliceItemName } from '../../src/controller/slice-item.ts';
import type { Representation } from '../../src/core/representation.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import { decodeReport, type DecodedReport } from '../../src/grpc/decode.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { MemorySliceApi, MemoryTunnelApi } from '../support/memory-api.ts';
import { objectsOfSlices } from '../support/model-slices.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { Model, violations, type ModelStream } from '../support/model.ts';
import { anyContent, anyReporter } from '../support/model-reports.ts';
import { createdAtOf, createObjectChecker, MODEL_CLOCK } from '../support/model-objects.ts';
import { assertHolds, PROPERTY_TIMEOUT_MS } from '../support/property-runs.ts';
import { requestBytes, tunnel, type RequestFields } from '../support/wire.ts';

interface SentReport {
  readonly reporter: { readonly cluster: string; readonly id: string };
  readonly content: RequestFields;
}

type Step =
  | ({ readonly do: 'report' | 'reconnect' } & SentReport)
  /** Writes are sent; the watch does not return them yet. */
  | { readonly do: 'write' }
  | { readonly do: 'watch'; readonly events: number }
  /** Lets time pass while everything runs. */
  | { readonly do: 'wait'; readonly ms: number }
  /** Waits until everything is idle and compares the objects. */
  | { readonly do: 'settle' }
  /** Restarts the operator; some reports arrive before it has listed the objects. */
  | { readonly do: 'restart' | 'crash'; readonly early: readonly SentReport[] };

const parts = { reporter: anyReporter, content: anyContent };
const sentReport: fc.Arbitrary<SentReport> = fc.record(parts);
const report: fc.Arbitrary<Step> = fc.record({ do: fc.constant('report' as const), ...parts });
const reconnect: fc.Arbitrary<Step> = fc.record({ do: fc.constant('reconnect' as const), ...parts });
const restart: fc.Arbitrary<Step> = fc.record({
  do: fc.constantFrom('restart' as const, 'crash' as const),
  early: fc.array(sentReport, { maxLength: 3 }),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: report },
  { weight: 2, arbitrary: reconnect },
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'write' }) },
  { weight: 2, arbitrary: fc.nat({ max: 4 }).map((events): Step => ({ do: 'watch', events })) },
  { weight: 5, arbitrary: fc.constantFrom(10_000, 31_000).map((ms): Step => ({ do: 'wait', ms })) },
  { weight: 3, arbitrary: fc.constant<Step>({ do: 'settle' }) },
  { weight: 1, arbitrary: restart },
);

/** Counts what the runs covered, so that the test fails if it covers too little. */
const covered = {
  reports: 0,
  nacks: 0,
  rejectedTunnels: 0,
  inBothLists: 0,
  removedTwice: 0,
  omitted: 0,
  restarts: 0,
  early: 0,
  checks: 0,
  objects: 0,
  held: 0,
  returned: 0,
  ended: 0,
};

/** Each full push that lacks an object holds its removal; test/unit/core-removal-hold.test.ts checks the threshold. */
const EVERY_REMOVAL: RemovalHoldRule = { holdMs: 30_000, thresholdPercent: 0, maxImmediate: 0 };

function decode(bytes: Buffer): DecodedReport {
  const work = decodeReport(bytes);
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

/** What the tunnels are represented by; `alternating`: each restart changes it. */
type Form = 'objects' | 'slices' | 'alternating';

/** Few, so that the tunnels of a sequence need several slices. */
const MAX_SLICE_TUNNELS = 3;
/** Longer than the changes of a slice are collected. */
const SLICE_BATCH_MS = 250;

/** Applies one sequence to the model and to the parts of the operator, and compares the objects. */
async function run(
  onInvalid: 'skip' | 'nack',
  steps: readonly Step[],
  removalHold: RemovalHoldRule = NO_REMOVAL_HOLD,
  form: Form = 'objects',
): Promise<void> {
  const api = new MemoryTunnelApi();
  const sliceApi = form === 'objects' ? undefined : new MemorySliceApi();
  let representation: Representation = form === 'objects' ? 'objects' : 'slices';
  const model = new Model(onInvalid, removalHold.holdMs);
  const checkObjects = createObjectChecker();
  const streams = new Map<string, ModelStream>();
  let harness = startOperator();
  await harness.start();

  function startOperator(): ControllerHarness {
    return createHarness({
      api,
      sliceApi,
      representation,
      maxSliceTunnels: MAX_SLICE_TUNNELS,
      serverClock: MODEL_CLOCK,
      removalHold,
    });
  }

  /** Returns the objects, and the entries of slices as objects. */
  function storedObjects(): TunnelObject[] {
    const objects = [...api.stored.values(), ...objectsOfSlices(sliceApi?.stored.values() ?? [])];
    if (form === 'objects') return objects;
    const shown = new Set<string>();
    // After a crash, a tunnel may be shown twice until its reporter reports it again.
    const single = objects.filter(({ spec: { reporter, tunnelName } }) => {
      const key = reporterKey(reporter);
      const isCopy = shown.has(`${key} ${tunnelName}`);
      shown.add(`${key} ${tunnelName}`);
      return !isCopy || harness.ledger.tunnelState(key, tunnelName).state !== 'unknown';
    });
    // With each change of the form, a tunnel gets another object or slice.
    return form === 'alternating' ? single.map((object) => withoutIdentity(object)) : single;
  }

  function objectOf(cluster: string, id: string, name: string): 'yes' | 'no' | 'maybe' {
    const key = reporterKey({ cluster, id });
    const items = [name, ...[...(sliceApi?.stored.keys() ?? [])].map((slice) => sliceItemName(slice))];
    if (items.some((item) => harness.queue.isRunning(key, item))) return 'maybe';
    const isObject = ({ spec }: TunnelObject): boolean =>
      spec.tunnelName === name && spec.reporter.id === id && spec.reporter.cluster === cluster;
    return storedObjects().some(isObject) ? 'yes' : 'no';
  }

  function report({ reporter, content }: SentReport): void {
    const key = JSON.stringify(reporter);
    const stream = streams.get(key) ?? model.open();
    streams.set(key, stream);
    const fields: RequestFields = { ...content, node: reporter, nonce: 1 };
    const heldBefore = model.held;
    const response = model.report(stream, fields, objectOf);
    covered.held += model.held.filter((object) => !heldBefore.includes(object)).length;
    covered.returned += heldBefore.filter((object) => !model.held.includes(object)).length;
    const decoded = decode(requestBytes(fields));
    expect(decoded.rejected.count).to.equal(violations(fields).length);
    covered.rejectedTunnels += decoded.rejected.count;
    if (response.kind === 'nack') {
      expect(decoded.rejected.first[0]?.field).to.equal(response.field);
      streams.delete(key);
      covered.nacks += 1;
      return;
    }
    harness.report(reporter, decoded);
    covered.reports += 1;
    if (decoded.removedNames.some((name) => decoded.added.some((tunnel) => tunnel.name === name))) {
      covered.inBothLists += 1;
    }
    if (new Set(decoded.removedNames).size < decoded.removedNames.length) covered.removedTwice += 1;
  }

  async function settle(): Promise<void> {
    // The claim of a new stream compares everything, and this harness does not claim.
    if (form === 'alternating') {
      for (const { key } of harness.registry.entries()) harness.resync(key);
    }
    advanceModel(await harness.settleFlapping());
    // Each of the writes of a migration may follow the one before it after a batch.
    if (sliceApi === undefined) return;
    for (let batch = 0; batch < 8; batch += 1) {
      await harness.advance(SLICE_BATCH_MS);
      advanceModel(SLICE_BATCH_MS);
      advanceModel(await harness.settleFlapping());
    }
  }

  function advanceModel(ms: number): void {
    const { length } = model.held;
    model.advance(ms);
    covered.ended += length - model.held.length;
  }

  async function check(): Promise<void> {
    await settle();
    const objects = storedObjects();
    checkObjects(model.objects, objects, model.held);
    covered.checks += 1;
    covered.objects += objects.length;
    covered.omitted += objects.filter(({ metadata }) => metadata.annotations !== undefined).length;
  }

  async function restart(crashed: boolean, early: readonly SentReport[]): Promise<void> {
    if (crashed) {
      harness.workers.stop();
      // Writes in flight cannot be recalled.
      await flushEventLoop();
      model.restart(withoutCopies(storedObjects()));
    } else {
      await settle();
      harness.workers.stop();
      // The next process knows nothing of holds: it finds objects like any other.
      model.restart(model.held.length === 0 ? undefined : withoutCopies(storedObjects()));
    }
    streams.clear();
    if (form === 'alternating') representation = representation === 'slices' ? 'objects' : 'slices';
    harness = startOperator();
    for (const sent of early) report(sent);
    model.markListed();
    await harness.start();
    covered.restarts += 1;
    covered.early += early.length;
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
        api.deliver(harness.cache, next.events);
        sliceApi?.deliver(harness.sliceCache, next.events);
        break;
      case 'wait':
        await harness.advance(next.ms);
        advanceModel(next.ms);
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
  harness.workers.stop();
}

/** Returns an object that equals its successors. */
function withoutIdentity(object: TunnelObject): TunnelObject {
  return { ...object, metadata: { ...object.metadata, name: 'any', uid: 'any' } };
}

/** Returns the tunnels for the model; one that is in both forms during a migration once. */
function withoutCopies(objects: readonly TunnelObject[]): ReturnType<typeof modelObject>[] {
  // The first one counts, which is the object.
  const byTunnel = new Map(
    objects
      .toReversed()
      .map((object) => [JSON.stringify([object.spec.reporter, object.spec.tunnelName]), object]),
  );
  return [...byTunnel.values()].map((object) => modelObject(object));
}

function modelObject(object: TunnelObject) {
  const { tunnelName: name, tenantID, clusterID, nodeID, reporter } = object.spec;
  const createdAt = createdAtOf(object);
  return { cluster: reporter.cluster, id: reporter.id, name, tenantID, clusterID, nodeID, createdAt };
}

describe('the controller, compared to a model', () => {
  it('has the objects of the model after any sequence of reports and restarts, with and without holds of removals', async function () {
    this.timeout(PROPERTY_TIMEOUT_MS);
    const property = fc.asyncProperty(
      fc.constantFrom('skip' as const, 'nack' as const),
      fc.array(step, { maxLength: 25, size: 'max' }),
      fc.constantFrom(EVERY_REMOVAL, NO_REMOVAL_HOLD),
      fc.constant('objects' as const),
      run,
    );
    const runs = await assertHolds(property, { runs: 1000, file: 'test/unit/model-objects.test.ts' });
    for (const [what, times] of Object.entries(covered))
      expect(times, what).to.be.at.least(Math.floor(runs / 100));
  });

  it('has the tunnels of the model in slices, and during migrations in one of both forms', async function () {
    this.timeout(PROPERTY_TIMEOUT_MS);
    const property = fc.asyncProperty(
      fc.constantFrom('skip' as const, 'nack' as const),
      fc.array(step, { maxLength: 25, size: 'max' }),
      fc.constantFrom(EVERY_REMOVAL, NO_REMOVAL_HOLD),
      fc.constantFrom('slices' as const, 'alternating' as const),
      run,
    );
    await assertHolds(property, { runs: 200, file: 'test/unit/model-objects.test.ts' });
  });

  it('has a tunnel in a slice that was reported before the slices were listed', async () => {
    const reporter = { cluster: '', id: 'responder-0' };
    const early = [{ reporter, content: { added_tunnels: [tunnel('node-1')] } }];
    await run('skip', [{ do: 'restart', early }], NO_REMOVAL_HOLD, 'slices');
  });

  it('has a tunnel once if its tenant changes and changes back', async () => {
    const reporter = { cluster: '', id: 'responder-0' };
    const reportOf = (tenant: string): Step => ({
      do: 'report',
      reporter,
      content: {
        added_tunnels: [
          { name: 'node-1', identity: { tenant_id: tenant, cluster_id: 'eu-1', node_id: 'node-1' } },
        ],
      },
    });
    const steps: Step[] = [
      reportOf('acme'),
      { do: 'settle' },
      reportOf('beta'),
      { do: 'settle' },
      reportOf('acme'),
    ];
    await run('skip', steps, NO_REMOVAL_HOLD, 'slices');
  });

  it('has a tunnel once if it returns to its tenant with another node while it is being moved', async () => {
    const reporter = { cluster: 'core', id: 'responder-0' };
    const reported = (name: string, tenant: string, node: string) => ({
      name,
      identity: { tenant_id: tenant, cluster_id: 'eu-1', node_id: node },
    });
    const steps: Step[] = [
      {
        do: 'report',
        reporter,
        content: {
          full_push: true,
          added_tunnels: [reported('node-2', 'beta', 'node-2'), reported('node-1', 'acme', 'node-1')],
        },
      },
      {
        do: 'restart',
        early: [{ reporter, content: { added_tunnels: [reported('node-1', 'beta', 'node-1')] } }],
      },
      { do: 'reconnect', reporter, content: { added_tunnels: [reported('node-1', 'acme', 'node-3')] } },
    ];
    await run('skip', steps, NO_REMOVAL_HOLD, 'slices');
  });

  it('detects a flap after a heartbeat that arrived before the objects were listed', async () => {
    const reporter = { cluster: 'edge', id: 'responder-0' };
    const at = (seconds: number): SentReport => ({
      reporter,
      content: { added_tunnels: [{ ...tunnel('node-1'), created_at: { seconds } }] },
    });
    const heartbeat: SentReport = { reporter, content: {} };
    await run('skip', [
      { do: 'report', ...at(1) },
      { do: 'restart', early: [heartbeat] },
      { do: 'report', reporter, content: { ...at(2).content, removed_tunnel_names: ['node-1'] } },
    ]);
  });
});
