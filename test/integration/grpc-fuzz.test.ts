import { expect } from 'chai';
import { decodeCases } from '../../bench/fuzz/decode.ts';
import { MAX_GROWTH_BYTES, runCases, type LiveFuzzResult } from '../../bench/fuzz/live.ts';
import { createCorpus } from '../../bench/fuzz/mutations.ts';
import {
  createMessageDriver,
  createSequenceDriver,
  type CreateCaseDriver,
} from '../../bench/fuzz/drivers.ts';
import { startVictim } from '../support/attacks/victim-process.ts';
import { frame, FRAME, openRawPeer, PREFACE } from '../support/raw-http2.ts';

/** A share of `npm run fuzz`, always the same. */
const SEED = 1;
const MESSAGES = 5000;
const LIVE_MESSAGES = 500;
const SEQUENCES = 500;
const RUDE_CONNECTIONS = 1500;
/** Each once made the server keep 10 kB for ever. */
const MOST_KEPT_BYTES = 6 * 1024 * 1024;

describe('what is almost right, as fuzzing makes it', () => {
  function play(create: CreateCaseDriver, to: number): Promise<LiveFuzzResult> {
    const cases = { seed: SEED, from: 0, to, every: 1 };
    return runCases({
      ...cases,
      createDriver: create,
      startTarget: () => startVictim(),
      warmUp: 500,
      onProgress: () => {},
    });
  }

  it('is decoded to a report that keeps the rules, or refused', () => {
    const { reports, malformed } = decodeCases(createCorpus(SEED), { seed: SEED, from: 0, to: MESSAGES });
    expect(reports + malformed).to.equal(MESSAGES);
    expect(Math.min(reports, malformed)).to.be.above(MESSAGES / 10);
  });

  it('as messages: each is answered or refused, a reporter that behaves is served, nothing is kept', async () => {
    const { executed, answers, before, after } = await play(createMessageDriver, LIVE_MESSAGES);
    expect(executed).to.equal(LIVE_MESSAGES);
    expect(answers).to.include.keys('ACK', 'NACK', 'OK', 'INVALID_ARGUMENT');
    expect(after.usedBytes - before.usedBytes).to.be.below(MAX_GROWTH_BYTES);
  });

  it('as frames: each connection is closed, a reporter that behaves is served, nothing is kept', async () => {
    const { executed, answers, before, after } = await play(createSequenceDriver, SEQUENCES);
    expect(executed).to.equal(SEQUENCES);
    expect(answers).to.include.keys('data', 'headers', 'rstStream', 'goaway 1');
    expect(after.usedBytes - before.usedBytes).to.be.below(MAX_GROWTH_BYTES);
  });

  it('keeps nothing of a peer that breaks the protocol and goes without an ACK of SETTINGS', async () => {
    await using victim = await startVictim();
    const rude = Buffer.concat([
      PREFACE,
      frame(FRAME.settings, 0, 0),
      frame(FRAME.settings, 0, 0, Buffer.alloc(5)),
    ]);
    const connectTimes = async (count: number): Promise<void> => {
      for (let left = count; left > 0; left -= 1) {
        const peer = await openRawPeer(victim.address, false);
        peer.socket.end(rude);
        await peer.closed;
      }
    };
    await connectTimes(RUDE_CONNECTIONS / 5);
    const before = await victim.state();
    await connectTimes(RUDE_CONNECTIONS);
    const { usedBytes, errors } = await victim.state();
    expect(errors).to.deep.equal([]);
    expect(usedBytes - before.usedBytes).to.be.below(MOST_KEPT_BYTES);
  });
});
