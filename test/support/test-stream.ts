/** Streams whose reports are bytes, so that a test can send what no decent client would. */
import {
  Client,
  credentials,
  Metadata,
  type ChannelCredentials,
  type ClientDuplexStream,
} from '@grpc/grpc-js';
import { loadReportingService, type ReportResponse } from '../../src/grpc/proto.ts';
import { eventually } from './eventually.ts';
import { requestBytes, type RequestFields } from './wire.ts';

/** Long enough for two busy cores; reached only by what does not happen at all. */
const DEADLINE_MS = 60_000;

const { StreamReverseTunnels: METHOD } = loadReportingService().service;

/** A stream that a test speaks on, report by report. */
export interface TestStream {
  /** Writes a message as it is. */
  sendBytes(bytes: Buffer): void;
  send(fields: RequestFields): void;
  /** Every response so far, as decoded: what the server left out is missing. */
  readonly responses: Partial<ReportResponse>[];
  /** The next response that `next` has not given yet; fails when the stream ends before. */
  next(): Promise<Partial<ReportResponse>>;
  /** The status that ends the stream. */
  readonly ended: Promise<{ readonly code: number; readonly details: string }>;
  /** Half-closes: no more reports. */
  end(): void;
  cancel(): void;
  /** Takes no more responses until `resume`. */
  pause(): void;
  resume(): void;
  /** Messages that the connection has not taken yet, as the server does not read them. */
  readonly unsent: number;
}

/** A client with a connection of its own, plaintext by default, not the one that another client of this process has to the same address. */
export function dial(address: string, by: ChannelCredentials = credentials.createInsecure()): Client {
  return new Client(address, by, {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_channelz': 0,
  });
}

/** Opens a stream on the client's connection. @param token sent with it as `authorization: Bearer` */
export function openStream(client: Client, token?: string): TestStream {
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
  // The status event says the same; without a listener an error would end the test run.
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
    sendBytes,
    send: (fields) => sendBytes(requestBytes(fields)),
    responses,
    async next() {
      await eventually('a response', () => responses.length > nextIndex || final !== undefined, DEADLINE_MS);
      const response = responses[nextIndex];
      if (response === undefined)
        throw new Error(`the stream was closed instead: ${final?.code} ${final?.details}`);
      nextIndex += 1;
      return response;
    },
    ended,
    end: () => call.end(),
    cancel: () => call.cancel(),
    pause: () => void call.pause(),
    resume: () => void call.resume(),
    get unsent() {
      return unsent;
    },
  };
}
