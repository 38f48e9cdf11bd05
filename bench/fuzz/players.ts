/** Plays one case against a live server: a message on a gRPC stream, or a sequence of frames on a connection. */
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { Client, credentials, status } from '@grpc/grpc-js';
import { loadReportingService, type ReportResponse } from '../../src/grpc/proto.ts';
import { FRAME, openRawPeer } from '../../test/support/raw-http2.ts';
import { caseRandom, mutatedReport, oneOf, type Corpus } from './mutations.ts';
import { createSequence } from './sequences.ts';

/** Plays cases of one seed against one server; closed and made anew after some hundred. */
export interface Player {
  /**
   * Plays a case to its end, and tells what came back, in words to be counted.
   *
   * @throws Error when what came back, or that nothing did, is a fault
   */
  play(index: number): Promise<string[]>;
  close(): void;
}

export type CreatePlayer = (address: string, corpus: Corpus, seed: number) => Player;

/** No answer, or no end of a connection, for so long is a hang. */
const HANG_MS = 30_000;
/** How long a client that lingers waits for an answer before its FIN. */
const LINGER_MS = 50;
/** What ends the waiting for an answer. */
const ANSWERS = [FRAME.data, FRAME.headers, FRAME.rstStream, FRAME.goaway];
/** How the server may end a stream. `ABORTED`: another one of the same reporter was opened meanwhile. */
const RIGHTFUL: ReadonlySet<status> = new Set([
  status.OK,
  status.INVALID_ARGUMENT,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
]);

const { StreamReverseTunnels: METHOD } = loadReportingService().service;

/** Each case is a stream: the mutated report, and before it in every second case one that is not mutated. */
export const messagePlayer: CreatePlayer = (address, corpus, seed) => {
  const client = connectTo(address);
  return {
    play(index) {
      const random = caseRandom(seed, index);
      const mutated = mutatedReport(corpus, random);
      const messages = random.below(2) === 0 ? [mutated] : [oneOf(corpus, random), mutated];
      return callWith(client, messages);
    },
    close: () => client.close(),
  };
};

/** A client with a connection of its own. */
export function connectTo(address: string): Client {
  return new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
}

/**
 * Sends reports on a stream of their own, half-closes, and waits for its end.
 *
 * @returns the status, and `ACK` or `NACK` for each answer
 * @throws Error on a status that none of this deserves, or when answers are missing
 */
export async function callWith(client: Client, messages: readonly Buffer[]): Promise<string[]> {
  const call = client.makeBidiStreamRequest(
    METHOD.path,
    (bytes: Buffer) => bytes,
    (bytes: Buffer): Partial<ReportResponse> => METHOD.responseDeserialize(bytes),
    { deadline: Date.now() + HANG_MS },
  );
  const answers: string[] = [];
  call.on('data', ({ error_detail: error }: Partial<ReportResponse>) => {
    answers.push(error === undefined || error === null ? 'ACK' : 'NACK');
  });
  // The status says the same.
  call.on('error', () => {});
  const ended = new Promise<{ code: status; details: string }>((resolve) => call.on('status', resolve));
  for (const message of messages) call.write(message);
  call.end();
  const { code, details } = await ended;
  if (!RIGHTFUL.has(code)) throw new Error(`its stream ended with ${status[code]}: ${details}`);
  if (code === status.OK && answers.length < messages.length && !answers.includes('NACK')) {
    throw new Error(
      `${answers.length} of ${messages.length} reports were answered, and the stream was closed OK`,
    );
  }
  return [status[code], ...answers];
}

/** Each case is a connection of its own. */
export const sequencePlayer: CreatePlayer = (address, corpus, seed) => ({
  async play(index) {
    const { pieces, end } = createSequence(corpus, seed, index);
    const peer = await openRawPeer(address, false);
    for (const piece of pieces) {
      if (!(await peer.write(piece))) break;
      if (pieces.length > 1) await setImmediate();
    }
    if (end === 'linger') {
      const answered = peer.until(() => ANSWERS.some((type) => peer.received(type) > 0));
      await Promise.race([answered, delay(LINGER_MS)]);
    }
    if (end === 'rst') peer.socket.resetAndDestroy();
    else peer.socket.end();
    const over = new AbortController();
    const hung = delay(HANG_MS, true, { signal: over.signal }).catch(() => false);
    const isHung = await Promise.race([peer.closed.then(() => false), hung]);
    over.abort();
    peer.destroy();
    if (isHung) throw new Error(`the server did not close the connection within ${HANG_MS} ms of the FIN`);
    const types = (['data', 'headers', 'rstStream', 'settings'] as const).filter(
      (type) => peer.received(FRAME[type]) > 0,
    );
    return [...types, ...(peer.goawayCode === undefined ? [] : [`goaway ${peer.goawayCode}`])];
  },
  close() {},
});
