import { expect } from 'chai';
import { decodeCases } from '../../bench/fuzz/decode.ts';
import { MAX_GROWTH_BYTES, runCases, type LiveFuzzResult } from '../../bench/fuzz/live.ts';
import { createCorpus } from '../../bench/fuzz/mutations.ts';
import {
  createMessageDriver,
  createSequenceDriver,
  type CreateCaseDriver,
} from '../../bench/fuzz/drivers.ts';
import { startVictim } from '../support/victim-process.ts';
import { frame, FRAME, openRawPeer, PREFACE } from '../support/raw-http2.ts';

/** A fixed part of `npm run fuzz`. */
const SEED = 1;
const MESSAGES = 5000;
const LIVE_MESSAGES = 500;
const SEQUENCES = 500;
const VIOLATING_CONNECTIONS = 1500;
/** Each such connection once leaked 10 kB. */
const MAX_LEAKED_BYTES = 6 * 1024 * 1024;

describe('fuzzing the reporting server', () => {
  function run(create: CreateCaseDriver, to: number): Promise<LiveFuzzResult> {
    const cases = { seed: SEED, from: 0, to, stride: 1 };
    return runCases({
      ...cases,
      createDriver: create,
      startTarget: () => startVictim(),
      warmUp: 500,
      onProgress: () => {},
    });
  }

  it('decodes each mutated message to a valid report, or rejects it', () => {
    const { reports, malformed } = decodeCases(createCorpus(SEED), { seed: SEED, from: 0, to: MESSAGES });
    expect(reports + malformed).to.equal(MESSAGES);
    expect(Math.min(reports, malformed)).to.be.above(MESSAGES / 10);
  });

  it('answers or rejects each message, serves a well-behaved reporter, and leaks no memory', async () => {
    const { executed, responses, before, after } = await run(createMessageDriver, LIVE_MESSAGES);
    expect(executed).to.equal(LIVE_MESSAGES);
    expect(responses).to.include.keys('ACK', 'NACK', 'OK', 'INVALID_ARGUMENT');
    expect(after.usedBytes - before.usedBytes).to.be.below(MAX_GROWTH_BYTES);
  });

  it('closes each connection with mutated frames, serves a well-behaved reporter, and leaks no memory', async () => {
    const { executed, responses, before, after } = await run(createSequenceDriver, SEQUENCES);
    expect(executed).to.equal(SEQUENCES);
    expect(responses).to.include.keys('data', 'headers', 'rstStream', 'goaway 1');
    expect(after.usedBytes - before.usedBytes).to.be.below(MAX_GROWTH_BYTES);
  });

  it('leaks no memory when a peer violates the protocol and disconnects without an ACK of SETTINGS', async () => {
    await using victim = await startVictim();
    const violation = Buffer.concat([
      PREFACE,
      frame(FRAME.settings, 0, 0),
      frame(FRAME.settings, 0, 0, Buffer.alloc(5)),
    ]);
    const connectTimes = async (count: number): Promise<void> => {
      for (let opened = 0; opened < count; opened += 1) {
        const peer = await openRawPeer(victim.address, false);
        peer.socket.end(violation);
        await peer.closed;
      }
    };
    await connectTimes(VIOLATING_CONNECTIONS / 5);
    const before = await victim.state();
    await connectTimes(VIOLATING_CONNECTIONS);
    const { usedBytes, errors } = await victim.state();
    expect(errors).to.deep.equal([]);
    expect(usedBytes - before.usedBytes).to.be.below(MAX_LEAKED_BYTES);
  });
});
