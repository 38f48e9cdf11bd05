/** Runs a case against a live server: a message on a gRPC stream, or a sequence of frames on a connection. */
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { Client, credentials, status } from '@grpc/grpc-js';
import type { ReportResponse } from '../../src/grpc/messages.ts';
import { REPORTING_SERVICE } from '../../src/grpc/reporting-service.ts';
import { FRAME, openRawPeer } from '../../test/support/raw-http2.ts';
import { responseViolation } from '../../test/support/response-rules.ts';
import { caseRandom, mutatedReport, pickOne, type Corpus } from './mutations.ts';
import { createSequence } from './sequences.ts';

/** Runs cases of one seed against one server; recreated after some hundred cases. */
export interface CaseDriver {
  /**
   * Runs a case, and resolves with the names of the responses, which are counted.
   *
   * @throws Error if a response is unexpected or missing
   */
  run(index: number): Promise<string[]>;
  close(): void;
}

export type CreateCaseDriver = (address: string, corpus: Corpus, seed: number) => CaseDriver;

/** A missing response, or a connection that stays open, counts as a hang after this time. */
const HANG_TIMEOUT_MS = 30_000;
/** How long a lingering client waits for a response before it sends FIN. */
const LINGER_MS = 400;
/** The frames that count as a response. */
const RESPONSE_FRAMES = [FRAME.data, FRAME.headers, FRAME.rstStream, FRAME.goaway];
/** The valid statuses of a stream. `ABORTED` means that the same reporter has opened another stream meanwhile. */
const EXPECTED_STATUSES: ReadonlySet<status> = new Set([
  status.OK,
  status.INVALID_ARGUMENT,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
]);

const { StreamReverseTunnels: METHOD } = REPORTING_SERVICE;

/** Each case is a stream with a mutated report, after an unmodified report in every second case. */
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

/** Returns a client with a separate connection. */
export function connectClient(address: string): Client {
  return new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
}

/**
 * Sends reports on a new stream, half-closes it, and waits for its end.
 *
 * @returns the status, and `ACK` or `NACK` for each response
 * @throws Error on an unexpected status, an invalid response, or if responses are missing
 */
export async function sendReports(client: Client, messages: readonly Buffer[]): Promise<string[]> {
  const call = client.makeBidiStreamRequest(
    METHOD.path,
    (bytes: Buffer) => bytes,
    (bytes: Buffer): Partial<ReportResponse> => METHOD.responseDeserialize(bytes),
    { deadline: Date.now() + HANG_TIMEOUT_MS },
  );
  const responses: string[] = [];
  let violation: string | undefined;
  call.on('data', (response: Partial<ReportResponse>) => {
    violation ??= responseViolation(response);
    const { error_detail: error } = response;
    responses.push(error === undefined || error === null ? 'ACK' : 'NACK');
  });
  // The status contains the same error.
  call.on('error', () => {});
  const ended = new Promise<{ code: status; details: string }>((resolve) => call.on('status', resolve));
  for (const message of messages) call.write(message);
  call.end();
  const { code, details } = await ended;
  if (violation !== undefined) throw new Error(`a response violates the service definition: ${violation}`);
  if (!EXPECTED_STATUSES.has(code)) throw new Error(`stream ended with ${status[code]}: ${details}`);
  if (code === status.OK && responses.length < messages.length && !responses.includes('NACK')) {
    throw new Error(
      `${responses.length} of ${messages.length} reports got a response before the stream was closed with OK`,
    );
  }
  return [status[code], ...responses];
}

/** Each case is a separate connection. */
export const createSequenceDriver: CreateCaseDriver = (address, corpus, seed) => ({
  async run(index) {
    const { writes, end } = createSequence(corpus, seed, index);
    const peer = await openRawPeer(address, false);
    for (const piece of writes) {
      if (!(await peer.write(piece))) break;
      if (writes.length > 1) await setImmediate();
    }
    if (end === 'linger') {
      const responded = peer.waitUntil(() => RESPONSE_FRAMES.some((type) => peer.received(type) > 0));
      await Promise.race([responded, peer.closed, delay(LINGER_MS)]);
    }
    if (end === 'rst') peer.socket.resetAndDestroy();
    else peer.socket.end();
    const cancelTimer = new AbortController();
    const hangTimer = delay(HANG_TIMEOUT_MS, true, { signal: cancelTimer.signal }).catch(() => false);
    const isHung = await Promise.race([peer.closed.then(() => false), hangTimer]);
    cancelTimer.abort();
    peer.destroy();
    if (isHung) throw new Error(`connection not closed by the server within ${HANG_TIMEOUT_MS} ms of FIN`);
    const types = (['data', 'headers', 'rstStream', 'settings'] as const).filter(
      (type) => peer.received(FRAME[type]) > 0,
    );
    return [...types, ...(peer.goawayCode === undefined ? [] : [`goaway ${peer.goawayCode}`])];
  },
  close() {},
});
