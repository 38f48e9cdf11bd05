import type { MethodDefinition } from '@grpc/grpc-js';
import { decodeResponse } from './decode-response.ts';
import { encodeResponse } from './encode.ts';
import type { ReportResponse } from './messages.ts';

/** The full name of the service, as used by grpc.health.v1 and reflection. */
export const REPORTING_SERVICE_NAME =
  'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client.ReverseTunnelReportingService';

/**
 * The service in the form that grpc-js needs. Requests stay bytes on both sides: a full push can list a hundred thousand
 * tunnels, and decoding it in one go would delay every other stream.
 *
 * Written out instead of loaded from `proto/`, which takes 60 ms at each start; the tests compare with `proto/`.
 */
export const REPORTING_SERVICE: {
  readonly StreamReverseTunnels: MethodDefinition<Buffer, Partial<ReportResponse>>;
} = {
  StreamReverseTunnels: {
    path: `/${REPORTING_SERVICE_NAME}/StreamReverseTunnels`,
    requestStream: true,
    responseStream: true,
    requestSerialize: passThrough,
    requestDeserialize: passThrough,
    responseSerialize: encodeResponse,
    responseDeserialize: decodeResponse,
  },
};

function passThrough(bytes: Buffer): Buffer {
  return bytes;
}
