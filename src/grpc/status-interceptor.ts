import { ServerInterceptingCall, type Metadata, type ServerInterceptor, type status } from '@grpc/grpc-js';

/** A status in the form that grpc-js sends. */
export interface RecordedStatus {
  readonly code?: status | null;
  readonly details?: string | null;
}

/** Statuses by the call's metadata, the only object that is visible to both the interceptor and the handler. */
const statuses = new WeakMap<Metadata, RecordedStatus>();

/**
 * Records the status that each call ends with. If a message exceeds the size limit, grpc-js itself ends the call: it
 * sends the reason to the peer, but the handler only receives `cancelled`, as if the peer had gone.
 */
export const recordStatus: ServerInterceptor = (_method, call) => {
  let metadata: Metadata | undefined;
  const sendStatus = call.sendStatus.bind(call);
  // grpc-js bypasses the interceptors and calls this method directly, so the method must be replaced.
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

/** Returns the status with which this side ended a call; undefined while it is open, or if the peer ended it. */
export function recordedStatus(metadata: Metadata): RecordedStatus | undefined {
  return statuses.get(metadata);
}
