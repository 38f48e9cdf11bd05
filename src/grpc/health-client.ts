import { Client, credentials, status, type ServiceError } from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import { service } from 'grpc-health-check';
import { tlsServerName } from './tls-server-name.ts';

/**
 * The health of a server:
 * - its serving status;
 * - `authentication required`: it rejected this client, which presents no credentials;
 * - `failure`: one line why there is no status.
 */
export type ServerHealth =
  | { readonly status: 'UNKNOWN' | 'SERVING' | 'NOT_SERVING' | 'authentication required' }
  | { readonly failure: string };

interface HealthCheckResponse {
  readonly status: 'UNKNOWN' | 'SERVING' | 'NOT_SERVING';
}

const CHECK = service['Check'] as MethodDefinition<object, HealthCheckResponse>;

/** What grpc-js reports if a server that does not speak gRPC responds. */
const NO_GRPC_STATUS = /^Received HTTP status code /;
/** What grpc-js reports, as PERMISSION_DENIED, after a GOAWAY with INADEQUATE_SECURITY. */
const INADEQUATE_SECURITY = 'Protocol not secure enough';

/**
 * Calls `grpc.health.v1.Health/Check` for the server as a whole. With TLS, the server's certificate is not verified and no
 * client certificate is presented. Never rejects.
 *
 * @param address host:port, with an IPv6 host in brackets
 */
export function checkServerHealth(
  address: string,
  useTls: boolean,
  timeoutMs: number,
): Promise<ServerHealth> {
  const client = new Client(
    address,
    useTls
      ? credentials.createSsl(null, null, null, {
          rejectUnauthorized: false,
          checkServerIdentity: () => undefined,
        })
      : credentials.createInsecure(),
    {
      // The address is probed itself, never through a proxy from the environment or on a connection of another channel.
      'grpc.enable_http_proxy': 0,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_channelz': 0,
      ...tlsServerName(address).channelOptions,
    },
  );
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      CHECK.path,
      CHECK.requestSerialize,
      CHECK.responseDeserialize,
      { service: '' },
      { deadline: Date.now() + timeoutMs },
      (error, response) => {
        client.close();
        if (error !== null) resolve(healthFromError(error, useTls, timeoutMs));
        else resolve({ status: response?.status ?? 'UNKNOWN' });
      },
    );
  });
}

function healthFromError(error: ServiceError, useTls: boolean, timeoutMs: number): ServerHealth {
  const { code, details, metadata } = error;
  if (NO_GRPC_STATUS.test(details)) return { failure: 'health status is unavailable (gRPC status missing)' };
  if (code === status.DEADLINE_EXCEEDED) return { failure: `no response within ${timeoutMs / 1000} s` };
  // A response with a status has headers; without them, UNAVAILABLE means that the connection failed.
  const hasNoHeaders = Object.keys(metadata.getMap()).length === 0;
  if ((code === status.UNAVAILABLE && hasNoHeaders) || details === INADEQUATE_SECURITY) {
    // A server closes the connection of a client without a certificate only after the TLS 1.3 handshake.
    return useTls ? { status: 'authentication required' } : { failure: details };
  }
  return code === status.PERMISSION_DENIED || code === status.UNAUTHENTICATED
    ? { status: 'authentication required' }
    : { failure: `health status is unavailable (gRPC status ${code})` };
}
