import { expect } from 'chai';
import * as fc from 'fast-check';

import { manifestFor, type ObservedTunnel, type TunnelObject } from '../../src/core/tunnel-object.ts';
import { reporterKey, sameIdentity, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { apiFailure, MemoryTunnelApi, connectionFailure } from '../support/memory-api.ts';
import { createHarness, objectTexts, type ControllerHarness } from '../support/controller-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const REPORTERS = [RESPONDER, OTHER_RESPONDER];
const NAMES = ['node-1', 'node-2', 'acme:node-3'];

const anyReporter = fc.constantFrom(...REPORTERS);
const anyTunnel: fc.Arbitrary<Tunnel> = fc
  .record({
    name: fc.constantFrom(...NAMES),
    nodeID: fc.constantFrom('a', 'a', 'b'),
    tenantID: fc.constantFrom('acme', 'acme', 'beta'),
    createdAt: fc.constantFrom(undefined, '2026-11-23T05:00:00Z', '2026-11-23T05:00:01Z'),
  })
  .map(({ name, ...parts }) => tunnel(name, parts));

/** The state of one run: the API server, the current operator, and the expected tunnels. */
interface Run {
  readonly api: MemoryTunnelApi;
  harness: ControllerHarness;
  /** The tunnels of each reporter, computed independently. */
  readonly held: Map<string, Map<string, Tunnel>>;
  /** Deletions without a reason. */
  readonly violations: string[];
}

type Step = (run: Run) => void | Promise<void>;

function tunnelsOf({ held }: Run, reporter: ReporterId): Map<string, Tunnel> {
  const key = reporterKey(reporter);
  const tunnels = held.get(key) ?? new Map<string, Tunnel>();
  held.set(key, tunnels);
  return tunnels;
}

/** Returns any object, or undefined if there is none. */
function pick({ api }: Run, index: number): TunnelObject | undefined {
  return [...api.stored.values()][index % Math.max(1, api.stored.size)];
}

const aFullPush: fc.Arbitrary<Step> = fc
  .tuple(anyReporter, fc.uniqueArray(anyTunnel, { selector: ({ name }) => name }))
  .map(([reporter, tunnels]) => (run) => {
    const held = tunnelsOf(run, reporter);
    held.clear();
    for (const each of tunnels) held.set(each.name, each);
    run.harness.report(reporter, fullPush(...tunnels));
  });

/** A delta like Envoy's: adds and removals of a name alternate, but their order is not in the lists. */
const aDelta: fc.Arbitrary<Step> = fc
  .tuple(anyReporter, fc.array(anyTunnel, { maxLength: 4 }))
  .map(([reporter, changes]) => (run) => {
    const held = tunnelsOf(run, reporter);
    const added: Tunnel[] = [];
    const removed: string[] = [];
    for (const each of changes) {
      if (held.delete(each.name)) {
        removed.push(each.name);
      } else {
        held.set(each.name, each);
        added.push(each);
      }
    }
    run.harness.report(reporter, delta(added, removed));
  });

const anEdit: fc.Arbitrary<Step> = fc.tuple(fc.nat(9), fc.nat(4)).map(([index, what]) => (run) => {
  const object = pick(run, index);
  if (object === undefined) return;
  const { name } = object.metadata;
  if (what === 0) run.api.editManually(name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
  else if (what === 1) run.api.editManually(name, { labels: { team: 'network' } });
  else if (what === 2) run.api.editManually(name, { createdAt: null });
  else if (what === 3) run.api.editManually(name, { status: { state: 'Unknown' } });
  else run.api.deleteManually(name);
});

const aManualCreate: fc.Arbitrary<Step> = fc
  .tuple(anyReporter, anyTunnel, fc.constantFrom('mine', 'yours', undefined))
  .map(([reporter, of, name]) => ({ api }) => {
    const manifest = manifestFor(names, reporter, of);
    if (!api.stored.has(name ?? manifest.name))
      api.createManually({ ...manifest, name: name ?? manifest.name });
  });

const aFinalizer: fc.Arbitrary<Step> = fc.nat(9).map((index) => (run) => {
  const object = pick(run, index);
  if (object !== undefined) run.api.addFinalizer(object.metadata.name);
});

const aRelease: fc.Arbitrary<Step> = fc.nat(9).map((index) => (run) => {
  const object = pick(run, index);
  if (object !== undefined) run.api.removeFinalizer(object.metadata.name);
});

const FAILURES = [
  connectionFailure(),
  apiFailure('throttled', { retryAfterMs: 1000 }),
  apiFailure('unavailable', { status: 500 }),
  apiFailure('rejected', { status: 403 }),
  apiFailure('terminating', { status: 403 }),
];
/** The next calls fail, some after they have been executed. */
const aFault: fc.Arbitrary<Step> = fc
  .tuple(fc.constantFrom(...FAILURES), fc.integer({ min: 1, max: 5 }), fc.boolean())
  .map(([failure, times, afterwards]) => (run) => {
    let remaining = times;
    const fail = (): void => {
      remaining -= 1;
      if (remaining >= 0) throw failure;
    };
    if (afterwards) run.api.after = fail;
    else run.api.before = fail;
  });

/** From now on, calls are delayed before or after their execution. */
const aSlowServer: fc.Arbitrary<Step> = fc.tuple(fc.nat(400), fc.boolean()).map(([ms, back]) => (run) => {
  const wait = (): Promise<void> =>
    new Promise((resolve) => {
      run.harness.clock.setTimer(ms, resolve);
    });
  if (back) run.api.after = wait;
  else run.api.before = wait;
});

/** The watch returns some events, or a relist returns everything. */
const aWatch: fc.Arbitrary<Step> = fc.nat(6).map((events) => ({ api, harness }) => {
  if (events === 0) api.relist(harness.cache);
  else api.deliver(harness.cache, events);
});

/** Time passes without watch events. */
const aWhile: fc.Arbitrary<Step> = fc.oneof(fc.nat(50), fc.nat(2000), fc.nat(60_000)).map(
  (ms) =>
    ({ harness }) =>
      harness.advanceUnwatched(ms),
);

/** The operator stops with calls in flight, and another one starts. */
const aRestart: fc.Arbitrary<Step> = fc.constant(async (run: Run) => {
  run.harness.workers.stop();
  await run.harness.advanceUnwatched(1000);
  run.harness = createHarness({ api: run.api, concurrency: 3 });
  await run.harness.start();
});

const anySteps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: aFullPush },
    { weight: 6, arbitrary: aDelta },
    { weight: 4, arbitrary: anEdit },
    { weight: 2, arbitrary: aManualCreate },
    { weight: 1, arbitrary: aFinalizer },
    { weight: 1, arbitrary: aRelease },
    { weight: 3, arbitrary: aFault },
    { weight: 2, arbitrary: aSlowServer },
    { weight: 8, arbitrary: aWatch },
    { weight: 8, arbitrary: aWhile },
    { weight: 1, arbitrary: aRestart },
  ),
  { maxLength: 60, size: 'max' },
);

/** Returns why an object must not be deleted, from the ledger at that time; undefined if it may be deleted. */
function deleteViolation(
  { api, harness }: Run,
  { name, uid, resourceVersion }: ObservedTunnel,
): string | undefined {
  const stored = api.stored.get(name);
  // Rejected because of its preconditions.
  if (stored?.metadata.uid !== uid || stored.metadata.resourceVersion !== resourceVersion) return undefined;
  const { spec } = stored;
  const tunnelState = harness.ledger.tunnelState(reporterKey(spec.reporter), spec.tunnelName);
  if (tunnelState.state === 'absent') return undefined;
  const isCurrent =
    tunnelState.state === 'present' &&
    name === names.tunnelObjectName(spec.reporter, tunnelState.tunnel) &&
    sameIdentity(tunnelState.tunnel, spec);
  return tunnelState.state === 'unknown' || isCurrent
    ? `delete ${name}, which is ${tunnelState.state}`
    : undefined;
}

async function execute(steps: readonly Step[]): Promise<Run> {
  const api = new MemoryTunnelApi();
  const run: Run = { api, harness: createHarness({ api, concurrency: 3 }), held: new Map(), violations: [] };
  const remove = api.delete.bind(api);
  api.delete = (object) => {
    const violation = deleteViolation(run, object);
    if (violation !== undefined) run.violations.push(violation);
    return remove(object);
  };
  await run.harness.start();
  for (const step of steps) await step(run);

  // No more external changes, and every reporter sends a full push.
  api.before = () => {};
  api.after = () => {};
  for (const reporter of REPORTERS) {
    run.harness.report(reporter, fullPush(...tunnelsOf(run, reporter).values()));
  }
  for (const name of api.stored.keys()) api.removeFinalizer(name);
  await run.harness.advance(1_200_000);
  return run;
}

describe('the controller, after any sequence of events', () => {
  it('converges to the tunnels of the reporters, and then sends no more writes', async function () {
    this.timeout(120_000);
    await fc.assert(
      fc.asyncProperty(anySteps, async (steps) => {
        const run = await execute(steps);
        const { api, harness } = run;
        expect(run.violations).to.deep.equal([]);

        const expected = REPORTERS.flatMap((reporter) =>
          [...tunnelsOf(run, reporter).values()].map((of) => {
            const { name, labels, spec } = manifestFor(names, reporter, of);
            const {
              labels: actualLabels,
              uid,
              resourceVersion,
            } = api.stored.get(name)?.metadata ?? {
              labels: {},
              uid: '',
              resourceVersion: '',
            };
            const foreign = Object.entries(actualLabels ?? {}).filter(([label]) => label === 'team');
            return {
              metadata: { name, uid, resourceVersion, labels: { ...labels, ...Object.fromEntries(foreign) } },
              spec,
              status: {
                state: 'Connected',
                conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
              },
            };
          }),
        );
        expect(objectTexts(api.stored.values())).to.deep.equal(objectTexts(expected));

        const { writes } = api;
        for (const reporter of REPORTERS) {
          harness.report(reporter, fullPush(...structuredClone([...tunnelsOf(run, reporter).values()])));
        }
        await harness.advance(600_000);
        expect(api.writes, 'writes after convergence').to.equal(writes);
        expect(harness.queue.idle, 'queue idle').to.equal(true);
        expect(harness.queue.delayedCount).to.equal(0);
        expect(harness.clock.pendingTimersMs, 'pending timers').to.deep.equal([]);
      }),
      { numRuns: 300 },
    );
  });
});
