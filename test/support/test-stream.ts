/** Streams whose reports are bytes, so that a test can send what no client would. */
import {
  Client,
  credentials,
  Metadata,
  type ChannelCredentials,
  type ClientDuplexStream,
} from '@grpc/grpc-js';
import type { ReportResponse } from '../../src/grpc/messages.ts';
import { REPORTING_SERVICE } from '../../src/grpc/reporting-service.ts';
import { tlsServerName } from '../../src/grpc/tls-server-name.ts';
import { eventually } from './eventually.ts';
import { responseViolation } from './response-rules.ts';
import { requestBytes, type RequestFields } from './wire.ts';

/** Long enough for two busy cores; only reached when the response never arrives. */
const DEADLINE_MS = 60_000;

const { StreamReverseTunnels: METHOD } = REPORTING_SERVICE;

/** A stream on which a test sends reports. */
export type TestStream = ReturnType<typeof openStream>;

/**
 * Creates a client with a connection of its own, plaintext by default, which is not shared with other clients of
 * this process.
 */
export function dial(address: string, by: ChannelCredentials = credentials.createInsecure()): Client {
  return new Client(address, by, {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_channelz': 0,
    ...tlsServerName(address).channelOptions,
  });
}

/** Opens a stream on the client's connection. @param token sent as `authorization: Bearer` */
export function openStream(client: Client, token?: string) {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  const call: ClientDuplexStream<Buffer, Partial<ReportResponse>> = client.makeBidiStreamRequest(
    METHOD.path,
    (bytes: Buffer) => bytes,
    (bytes: Buffer): Partial<ReportResponse> => METHOD.responseDeserialize(bytes),
    metadata,
  );
  const responses: Partial<ReportResponse>[] = [];
  let nextIndex = 0;
  let unsent = 0;
  let final: { readonly code: number; readonly details: string } | undefined;
  call.on('data', (response: Partial<ReportResponse>) => responses.push(response));
  // The status event reports the same; without a listener, an error would end the test run.
  call.on('error', () => {});
  const ended = new Promise<{ readonly code: number; readonly details: string }>((resolve) => {
    call.on('status', ({ code, details }) => {
      final = { code, details };
      resolve(final);
    });
  });
  const sendBytes = (bytes: Buffer): void => {
    unsent += 1;
    call.write(bytes, () => {
      unsent -= 1;
    });
  };
  return {
    /** Sends a message unchanged. */
    sendBytes,
    send: (fields: RequestFields): void => sendBytes(requestBytes(fields)),
    /** All decoded responses so far; fields that the server left out are missing. */
    responses,
    /**
     * Returns the next response that was not returned yet; rejects when the stream ends before, and when any response
     * violates the rules of the service definition.
     */
    async next(): Promise<Partial<ReportResponse>> {
      await eventually('a response', () => responses.length > nextIndex || final !== undefined, DEADLINE_MS);
      const response = responses[nextIndex];
      const violation = responses.map(responseViolation).find((found) => found !== undefined);
      if (violation !== undefined)
        throw new Error(`a response violates the service definition: ${violation}`);
      if (response === undefined)
        throw new Error(`the stream ended instead: ${final?.code} ${final?.details}`);
      nextIndex += 1;
      return response;
    },
    /** The status that ended the stream. */
    ended,
    /** Half-closes the stream. */
    end: (): void => void call.end(),
    cancel: (): void => call.cancel(),
    /** Stops reading responses until `resume`. */
    pause: (): void => void call.pause(),
    resume: (): void => void call.resume(),
    /** Number of messages that the connection has not accepted yet, because the server does not read them. */
    get unsent() {
      return unsent;
    },
  };
}
