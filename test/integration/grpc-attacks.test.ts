import { expect } from 'chai';
import { ATTACKS } from './attacks/all.ts';
import { runRound } from '../support/attack.ts';
import { MALFORMED_STREAMS } from './attacks/malformed-streams.ts';
import { startSteadyReporter, type SteadyReporter } from '../support/steady-reporter.ts';
import { startVictim, type Victim } from '../support/victim-process.ts';
import type { VictimState } from '../support/victim.ts';
import { eventually } from '../support/eventually.ts';

const MIB = 1024 * 1024;
/** The default quota for buffered bytes, and as much again for garbage that has not been collected yet. */
const MAX_GROWTH_MIB = 600;
/** The heap keeps some free space. */
const MAX_LASTING_GROWTH_MIB = 48;
/** The deadline for the server to terminate an attack: exceeding a limit takes a while on a busy machine. */
const REJECTION_TIMEOUT_MS = 40_000;

describe('the reporting server under attack', function () {
  this.timeout(3 * REJECTION_TIMEOUT_MS);
  let victim: Victim;
  let steady: SteadyReporter;
  let baseline: VictimState;
  let startedMs: number;

  before(async () => {
    startedMs = performance.now();
    // Longer than this process may be suspended on a busy machine, so that a valid handshake is in time.
    victim = await startVictim({ limits: { handshakeTimeoutMs: 1000 } });
    steady = await startSteadyReporter(victim.address);
    await steady.waitForAcks(200);
    baseline = await victim.state();
  });

  after(async () => {
    await steady[Symbol.asyncDispose]();
    await victim[Symbol.asyncDispose]();
  });

  describe('serves a well-behaved reporter while a peer', () => {
    for (const { name, rejectedAs, round } of ATTACKS) {
      it(name, async () => {
        const before = await victim.state();
        const timeoutMs = rejectedAs === undefined ? undefined : REJECTION_TIMEOUT_MS;
        await runRound(victim.address, round, AbortSignal.timeout(REJECTION_TIMEOUT_MS), timeoutMs);
        await steady.waitForAcks(20);
        expect(steady.endReason).to.equal(undefined);
        const after = await victim.state();
        if (rejectedAs !== undefined) {
          expect(after.rejected[rejectedAs] ?? 0, rejectedAs).to.be.above(before.rejected[rejectedAs] ?? 0);
        }
        expect(after.errors).to.deep.equal([]);
      });
    }

    it('bounds its memory during the attacks and releases it afterwards', async () => {
      const { peakResidentBytes } = await victim.state();
      expect((peakResidentBytes - baseline.residentBytes) / MIB).to.be.below(MAX_GROWTH_MIB);
      await eventually('buffers are released', async () => {
        const { usedBytes } = await victim.state();
        return (usedBytes - baseline.usedBytes) / MIB < MAX_LASTING_GROWTH_MIB;
      });
    });

    it('logs one line per rejection reason and minute', async () => {
      const { rejectionLogs, rejected } = await victim.state();
      const reasons = rejectionLogs.map(({ reason }) => reason);
      expect(reasons.toSorted()).to.include.members(Object.keys(rejected));
      const minutes = 1 + Math.ceil((performance.now() - startedMs) / 60_000);
      expect(rejectionLogs.length).to.be.at.most(minutes * Object.keys(rejected).length);
    });
  });

  describe('survives a stream that begins with', () => {
    for (const { description, bytes } of MALFORMED_STREAMS) {
      it(description, async () => {
        await runRound(
          victim.address,
          async (open) => {
            const peer = await open();
            await peer.write(bytes);
            // The server sends any response before the ACKs below.
            await Promise.race([peer.closed, steady.waitForAcks(5)]);
          },
          AbortSignal.timeout(REJECTION_TIMEOUT_MS),
        );
        await steady.waitForAcks(2);
        expect((await victim.state()).errors).to.deep.equal([]);
      });
    }
  });
});
