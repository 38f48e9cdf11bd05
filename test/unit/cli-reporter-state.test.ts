import { expect } from 'chai';
import { replicasFromLeases } from '../../src/cli/replicas.ts';
import type { ReporterObject } from '../../src/core/reporter-object.ts';
import { checkReporters } from '../../src/doctor/check-reporters.ts';
import type { DoctorInputs } from '../../src/doctor/inputs.ts';
import { summarize } from '../../src/status/summary.ts';
import { conditionOf, NOW_MS, reporterObject } from '../support/reporter-objects.ts';

/** Returns a reporter whose objects are `applied` of `reported`. */
function withTunnels(reporter: ReporterObject, reported: number, applied: number): ReporterObject {
  return { ...reporter, status: { ...reporter.status, tunnels: { reported, applied, rejected: 0 } } };
}

const synced = (status: string, reason: string, agoMs: number) => ({
  conditions: [conditionOf('Synced', status, reason, agoMs)],
});

describe('doctor and status', () => {
  const fleets: readonly (readonly [string, readonly ReporterObject[]])[] = [
    ['a healthy fleet', [reporterObject('a'), reporterObject('b')]],
    ['a first minute of writing', [reporterObject('a', synced('False', 'SyncInProgress', 5_000))]],
    ['an hour of writing', [reporterObject('a', synced('False', 'SyncInProgress', 3_600_000))]],
    ['pending tunnels of a reporter that is still called in sync', [withTunnels(reporterObject('a'), 53, 3)]],
    ['one reporter of two', [reporterObject('a'), reporterObject('b', synced('Unknown', 'Pending', 1_000))]],
    ['only deltas', [reporterObject('a', synced('False', 'AwaitingFullPush', 1_000))]],
    ['rejected writes', [reporterObject('a', synced('False', 'WritesRejected', 1_000))]],
    ['rejected tunnels', [reporterObject('a', synced('False', 'TunnelsRejected', 1_000))]],
    ['rewritten objects', [reporterObject('a', synced('False', 'RewrittenByAdmission', 1_000))]],
    ['a reason that this version does not know', [reporterObject('a', synced('False', 'Later', 1_000))]],
    [
      'a disconnected reporter',
      [reporterObject('a', { conditions: [conditionOf('Connected', 'False', 'StreamEnded')] })],
    ],
    [
      'a reporter without a status',
      [{ ...reporterObject('a'), status: undefined } as unknown as ReporterObject],
    ],
  ];
  for (const [title, reporters] of fleets) {
    it(`agree about who is connected and in sync: ${title}`, () => {
      const { totals } = summarize({
        objects: [],
        reporters,
        replicas: replicasFromLeases([], ''),
        nowMs: NOW_MS,
      });
      const inputs = {
        nowMs: NOW_MS,
        namespace: 'tunnels',
        reporters: { value: reporters },
        replicas: { failure: 'not asked for', forbidden: true },
        mutatingAdmission: { value: [] },
      } as unknown as DoctorInputs;
      const messages = checkReporters(inputs).map(({ message }) => message);
      const isHealthy =
        totals.connected === reporters.length && totals.synced === reporters.length && totals.pending === 0;
      expect(messages.some((message) => message.endsWith('connected and in sync'))).to.equal(isHealthy);
      const [, connected = '', inSync = '', pending = ''] =
        /^(\d+) reporters? connected, (\d+) in sync, (\d+) tunnels? pending$/.exec(messages[0] ?? '') ?? [];
      if (connected !== '') {
        expect(Number(connected)).to.equal(totals.connected);
        expect(Number(pending)).to.equal(totals.pending);
        expect(Number(inSync)).to.be.at.most(totals.synced);
      }
    });
  }
});
