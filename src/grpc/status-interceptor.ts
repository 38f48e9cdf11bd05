import { ServerInterceptingCall, status, type Metadata, type ServerInterceptor } from '@grpc/grpc-js';

/** A status in the form that grpc-js sends. */
export interface RecordedStatus {
  readonly code?: status | null;
  readonly details?: string | null;
}

/** The messages of grpc-js for a message above the size limit, and for one that is above it when it is decompressed. */
const TOO_LARGE = /^Received message larger than max \((\d+) vs (\d+)\)$/;
const TOO_LARGE_DECOMPRESSED = /^Received message that decompresses to a size larger than (\d+)$/;

/** Statuses by the call's metadata, the only object that is visible to both the interceptor and the handler. */
const statuses = new WeakMap<Metadata, RecordedStatus>();

/**
 * Records the status that each call ends with. If a message exceeds the size limit, grpc-js itself ends the call: it
 * sends the reason to the peer, but the handler only receives `cancelled`, as if the peer had gone. The reason is
 * replaced by one that names the flag.
 */
export const recordStatus: ServerInterceptor = (_method, call) => {
  let metadata: Metadata | undefined;
  const sendStatus = call.sendStatus.bind(call);
  // grpc-js bypasses the interceptors and calls this method directly, so the method must be replaced.
  call.sendStatus = (givenStatus) => {
    const sentStatus = { ...givenStatus, ...explainTooLarge(givenStatus) };
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

/** Returns how to fix a report that grpc-js rejects because of its size; undefined for any other status. */
function explainTooLarge({ code, details }: RecordedStatus): { readonly details: string } | undefined {
  if (code !== status.RESOURCE_EXHAUSTED) return undefined;
  const [, size, max] = TOO_LARGE.exec(details ?? '') ?? [];
  const limit = max ?? TOO_LARGE_DECOMPRESSED.exec(details ?? '')?.[1];
  if (limit === undefined) return undefined;
  const report = size === undefined ? 'decompressed report' : `report of ${size} bytes`;
  return {
    details:
      `${report} exceeds the limit of ${limit} bytes; increase --max-message-size (config.maxMessageSize in the chart), ` +
      'or distribute the tunnels over more reporters',
  };
}

/** Returns the status with which this side ended a call; undefined while it is open, or if the peer ended it. */
export function recordedStatus(metadata: Metadata): RecordedStatus | undefined {
  return statuses.get(metadata);
}
