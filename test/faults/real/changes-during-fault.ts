import { applyChangesOver, waitForAcks, WRITES_PER_CHANGE } from './changes.ts';
import {
  countObjectWrites,
  measureRecovery,
  snapshot,
  streamCounts,
  withoutObjects,
  type RecoveryBounds,
  type Snapshot,
} from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';
import type { FaultScenario, Metric } from './scenario.ts';

export interface ChangesDuringFault {
  readonly name: string;
  readonly description: string;
  /** For how long tunnels change after the injection; `long`: as given by the scale; 0: all at once. */
  readonly changesMs: number | 'long';
  /** Whether no stream may notice the fault, so that reports are ACKed as usual. */
  readonly isHidden?: boolean;
  readonly deletesAll?: boolean;
  /** Returns the keys of the objects that it deletes, if any. */
  inject(fixture: FaultFixture): Promise<readonly string[] | void> | void;
  /** Resolves when the fault has ended. */
  recover(fixture: FaultFixture): Promise<void> | void;
  /** Without `writes`, which are bound by those that the changes need plus `extraWrites`. */
  readonly bounds: Omit<RecoveryBounds, 'writes'>;
  /** Default: not bound. */
  readonly extraWrites?: number | ((before: Snapshot) => number);
  /** Returns further metrics after the recovery. */
  check?(fixture: FaultFixture, before: Snapshot): Promise<Metric[]> | Metric[];
}

/** Injects a fault, changes tunnels, ends the fault, and measures the recovery. */
export function createScenario(fault: ChangesDuringFault): FaultScenario {
  const { name, description, changesMs, extraWrites } = fault;
  return {
    name,
    description,
    async run(fixture, scale, setStatus) {
      const durationMs = changesMs === 'long' ? scale.outageMs : changesMs;
      const before = await snapshot(fixture);
      setStatus('injecting');
      const deleted = (await fault.inject(fixture)) ?? [];
      const injectedMs = performance.now();
      const changes = await applyChangesOver(fixture, scale.changes, durationMs);
      const hidden: Metric[] = [];
      if (fault.isHidden === true) {
        const ackedMs = await waitForAcks(fixture);
        hidden.push({
          name: 'ACK delay of changes during the fault',
          value: ackedMs / 1000,
          unit: 's',
          atMost: 3,
        });
        hidden.push(...streamMetrics(fixture, before, performance.now() - injectedMs, durationMs));
      }
      setStatus('recovering');
      await fault.recover(fixture);
      if (fault.isHidden !== true) await fixture.fleet.settled();
      const surviving = withoutObjects(before, fault.deletesAll === true ? before.objects.keys() : deleted);
      const extra = typeof extraWrites === 'function' ? extraWrites(before) : extraWrites;
      const metrics = await measureRecovery(fixture, surviving, {
        ...fault.bounds,
        ...(extra === undefined ? {} : { writes: WRITES_PER_CHANGE * changes + extra }),
      });
      if (fault.isHidden === true) {
        const value = await countObjectWrites(fixture, before, 'delete');
        hidden.push({ name: 'objects deleted', value, atMost: changes });
      }
      return [...metrics, ...hidden, ...((await fault.check?.(fixture, before)) ?? [])];
    },
  };
}

/** No stream ends, and reports that are sent in time are ACKed. */
function streamMetrics(
  fixture: FaultFixture,
  before: Snapshot,
  passedMs: number,
  durationMs: number,
): Metric[] {
  const { disconnects, acks } = streamCounts(fixture);
  const ended: Metric = { name: 'streams ended', value: disconnects - before.disconnects, atMost: 0 };
  // The share of a shorter time depends on when each reporter sends.
  if (durationMs < 3000) return [ended];
  const expectedAcks = (fixture.fleet.reporters.length * passedMs) / 1000;
  const value = ((acks - before.acks) * 100) / expectedAcks;
  return [ended, { name: 'share of expected ACKs', value, unit: '%', atLeast: 80 }];
}
