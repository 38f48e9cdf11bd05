/** Plays one case against a live server: a message on a gRPC stream, or a sequence of frames on a connection. */
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { Client, credentials, status } from '@grpc/grpc-js';
import { loadReportingService, type ReportResponse } from '../../src/grpc/proto.ts';
import { FRAME, openRawPeer } from '../../test/support/raw-http2.ts';
import { caseRandom, mutatedReport, pickOne, type Corpus } from './mutations.ts';
import { createSequence } from './sequences.ts';

/** Plays cases of one seed against one server; closed and made anew after some hundred. */
export interface CaseDriver {
  /**
   * Plays a case to its end, and tells what came back, in words to be counted.
   *
   * @throws Error when what came back, or that nothing did, is a fault
   */
  run(index: number): Promise<string[]>;
  close(): void;
}

export type CreateCaseDriver = (address: string, corpus: Corpus, seed: number) => CaseDriver;

/** No answer, or no end of a connection, for so long is a hang. */
const HANG_TIMEOUT_MS = 30_000;
/** How long a client that lingers waits for an answer before its FIN. */
const LINGER_MS = 50;
/** What ends the waiting for an answer. */
const RESPONSE_FRAMES = [FRAME.data, FRAME.headers, FRAME.rstStream, FRAME.goaway];
/** How the server may end a stream. `ABORTED`: another one of the same reporter was opened meanwhile. */
const EXPECTED_STATUSES: ReadonlySet<status> = new Set([
  status.OK,
  status.INVALID_ARGUMENT,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
]);

const { StreamReverseTunnels: METHOD } = loadReportingService().service;

/** Each case is a stream: the mutated report, and before it in every second case one that is not mutated. */
export const createMessageDriver: CreateCaseDriver = (address, corpus, seed) => {
  const client = connectClient(address);
  return {
    run(index) {
      const random = caseRandom(seed, index);
      const mutated = mutatedReport(corpus, random);
      const messages = random.below(2) === 0 ? [mutated] : [pickOne(corpus, random), mutated];
      return sendReports(client, messages);
    },
    close: () => client.close(),
  };
};

/** A client with a connection of its own. */
export function connectClient(address: string): Client {
  return new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
}

/**
 * Sends reports on a stream of their own, half-closes, and waits for its end.
 *
 * @returns the status, and `ACK` or `NACK` for each answer
 * @throws Error on a status that none of this deserves, or when answers are missing
 */
export async function sendReports(client: Client, messages: readonly Buffer[]): Promise<string[]> {
  const call = client.makeBidiStreamRequest(
    METHOD.path,
    (bytes: Buffer) => bytes,
    (bytes: Buffer): Partial<ReportResponse> => METHOD.responseDeserialize(bytes),
    { deadline: Date.now() + HANG_TIMEOUT_MS },
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
  if (!EXPECTED_STATUSES.has(code)) throw new Error(`its stream ended with ${status[code]}: ${details}`);
  if (code === status.OK && answers.length < messages.length && !answers.includes('NACK')) {
    throw new Error(
      `${answers.length} of ${messages.length} reports were answered, and the stream was closed OK`,
    );
  }
  return [status[code], ...answers];
}

/** Each case is a connection of its own. */
export const createSequenceDriver: CreateCaseDriver = (address, corpus, seed) => ({
  async run(index) {
    const { writes, end } = createSequence(corpus, seed, index);
    const peer = await openRawPeer(address, false);
    for (const piece of writes) {
      if (!(await peer.write(piece))) break;
      if (writes.length > 1) await setImmediate();
    }
    if (end === 'linger') {
      const answered = peer.waitUntil(() => RESPONSE_FRAMES.some((type) => peer.received(type) > 0));
      await Promise.race([answered, delay(LINGER_MS)]);
    }
    if (end === 'rst') peer.socket.resetAndDestroy();
    else peer.socket.end();
    const cancelTimer = new AbortController();
    const hangTimer = delay(HANG_TIMEOUT_MS, true, { signal: cancelTimer.signal }).catch(() => false);
    const isHung = await Promise.race([peer.closed.then(() => false), hangTimer]);
    cancelTimer.abort();
    peer.destroy();
    if (isHung)
      throw new Error(`the server did not close the connection within ${HANG_TIMEOUT_MS} ms of the FIN`);
    const types = (['data', 'headers', 'rstStream', 'settings'] as const).filter(
      (type) => peer.received(FRAME[type]) > 0,
    );
    return [...types, ...(peer.goawayCode === undefined ? [] : [`goaway ${peer.goawayCode}`])];
  },
  close() {},
});
