import { expect } from 'chai';
import { ATTACKS } from '../support/attacks/all.ts';
import { runRound } from '../support/attacks/attack.ts';
import { MALFORMED_STREAMS } from '../support/attacks/malformed-streams.ts';
import { startSteadyReporter, type SteadyReporter } from '../support/attacks/steady-reporter.ts';
import { startVictim, type Victim } from '../support/attacks/victim-process.ts';
import type { VictimState } from '../support/attacks/victim.ts';
import { eventually } from '../support/eventually.ts';

const MIB = 1024 * 1024;
/** The default budget for what connections may make the server hold, and as much again for garbage on its way out. */
const MOST_GROWTH_MIB = 600;
/** A heap keeps some room. */
const LASTING_GROWTH_MIB = 48;
/** So long an attack is given that the server has to end: to send what is too much takes a busy machine a while. */
const REFUSED_MS = 40_000;

describe('the reporting server, attacked', function () {
  this.timeout(3 * REFUSED_MS);
  let victim: Victim;
  let steady: SteadyReporter;
  let calm: VictimState;

  before(async () => {
    // Longer than this process rests where others take most of the machine: the decent greet in time.
    victim = await startVictim({ limits: { handshakeTimeoutMs: 1000 } });
    steady = await startSteadyReporter(victim.address);
    await steady.waitForAcks(200);
    calm = await victim.state();
  });

  after(async () => {
    await steady[Symbol.asyncDispose]();
    await victim[Symbol.asyncDispose]();
  });

  describe('serves a reporter that behaves, while a peer', () => {
    for (const { name, rejectedAs, round } of ATTACKS) {
      it(name, async () => {
        const before = await victim.state();
        const mostMs = rejectedAs === undefined ? undefined : REFUSED_MS;
        await runRound(victim.address, round, AbortSignal.timeout(REFUSED_MS), mostMs);
        await steady.waitForAcks(20);
        expect(steady.endReason).to.equal(undefined);
        const after = await victim.state();
        if (rejectedAs !== undefined) {
          expect(after.rejected[rejectedAs] ?? 0, rejectedAs).to.be.above(before.rejected[rejectedAs] ?? 0);
        }
        expect(after.errors).to.deep.equal([]);
      });
    }

    it('did all that: memory was bounded, and is given back', async () => {
      const { peakResidentBytes } = await victim.state();
      expect((peakResidentBytes - calm.residentBytes) / MIB).to.be.below(MOST_GROWTH_MIB);
      await eventually('what was held is let go', async () => {
        const { usedBytes } = await victim.state();
        return (usedBytes - calm.usedBytes) / MIB < LASTING_GROWTH_MIB;
      });
    });

    it('did all that: the log has one line a minute of each reason', async () => {
      const { rejectionLogs, rejected } = await victim.state();
      const reasons = rejectionLogs.map(({ reason }) => reason);
      expect(reasons.toSorted()).to.include.members(Object.keys(rejected));
      expect(rejectionLogs.length).to.be.at.most(3 * Object.keys(rejected).length);
    });
  });

  describe('outlives a stream that begins with', () => {
    for (const { description, bytes } of MALFORMED_STREAMS) {
      it(description, async () => {
        await runRound(
          victim.address,
          async (open) => {
            const peer = await open();
            await peer.write(bytes);
            // Whatever it answers, it does so before the ACKs below, which it sends later.
            await Promise.race([peer.closed, steady.waitForAcks(5)]);
          },
          AbortSignal.timeout(REFUSED_MS),
        );
        await steady.waitForAcks(2);
        expect((await victim.state()).errors).to.deep.equal([]);
      });
    }
  });
});
