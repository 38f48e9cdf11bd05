import { ServerInterceptingCall, type Metadata, type ServerInterceptor, type status } from '@grpc/grpc-js';

/** A status as grpc-js sends it. */
export interface RecordedStatus {
  readonly code?: status | null;
  readonly details?: string | null;
}

/** By the call's metadata, the one object that an interceptor and the handler of a call both see. */
const statuses = new WeakMap<Metadata, RecordedStatus>();

/**
 * Notes the status that each call ends with. grpc-js ends a call by itself when a message is over the size limit; it
 * tells the peer why, but the handler no more than `cancelled`, as if the peer had gone.
 */
export const recordStatus: ServerInterceptor = (_method, call) => {
  let metadata: Metadata | undefined;
  const sendStatus = call.sendStatus.bind(call);
  // It does so below all interceptors, by its own method: only in that method's place can it be seen.
  call.sendStatus = (sentStatus) => {
    if (metadata !== undefined && !statuses.has(metadata)) statuses.set(metadata, sentStatus);
    sendStatus(sentStatus);
  };
  return new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(received, pass) {
          metadata = received;
          pass(received);
        },
      });
    },
  });
};

/** The status that a call was ended with on this side; undefined while it is open, and when the peer went first. */
export function recordedStatus(metadata: Metadata): RecordedStatus | undefined {
  return statuses.get(metadata);
}
