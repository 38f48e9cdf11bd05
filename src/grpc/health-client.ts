import { Client, credentials, status, type ServiceError } from '@grpc/grpc-js';
import { HEALTH_SERVICE, type ServingStatus } from './health-service.ts';
import { tlsServerName } from './tls-server-name.ts';

/**
 * The health of a server:
 * - `status`: its serving status;
 * - `rejection`: the server responded that it rejects this client, which presents no credentials, and why;
 * - `failure`: one line why there is no status.
 *
 * A connection that is closed without a reason is a failure: a missing credential is only one of its possible causes.
 */
export type ServerHealth =
  { readonly status: ServingStatus } | { readonly rejection: string } | { readonly failure: string };

const CHECK = HEALTH_SERVICE.Check;

/** What grpc-js reports if a server that does not speak gRPC responds. */
const NO_GRPC_STATUS = /^Received HTTP status code /;

/** Responses that reject a client without credentials, by gRPC status. */
const REJECTIONS: ReadonlyMap<status, string> = new Map([
  [status.UNAUTHENTICATED, 'authentication required'],
  [status.PERMISSION_DENIED, 'permission denied to a client without credentials'],
]);
/** What grpc-js reports, as PERMISSION_DENIED, after a GOAWAY with INADEQUATE_SECURITY. */
const INADEQUATE_SECURITY = 'Protocol not secure enough';
/** The TLS alert certificate_required (RFC 8446, section 6.2), as OpenSSL reports it. */
const CERTIFICATE_REQUIRED = /\bSSL alert number 116\b/;

/** What grpc-js reports if the connection is closed before the server has sent its HTTP/2 settings. */
const CLOSED_EARLY = /^Failed to connect\b/;
/** The cause of a failed connection in the message of grpc-js, which may be of several lines. */
const LAST_ERROR = /^No connection established\. Last error: (?:Error: )?(.*)\. Resolution note:/s;
/** The reason in the text of an OpenSSL error, which surrounds it with numbers and places in the source code. */
const OPENSSL_REASON = /:SSL routines:[^:]*:([^:]+):/;

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
        if (error !== null) resolve(healthFromError(error, timeoutMs));
        else resolve({ status: response?.status ?? 'UNKNOWN' });
      },
    );
  });
}

function healthFromError({ code, details, metadata }: ServiceError, timeoutMs: number): ServerHealth {
  if (NO_GRPC_STATUS.test(details)) return { failure: 'health status is unavailable (gRPC status missing)' };
  if (code === status.DEADLINE_EXCEEDED) return { failure: `no response within ${timeoutMs / 1000} s` };
  if (details === INADEQUATE_SECURITY)
    return { rejection: 'connection without a client certificate rejected (INADEQUATE_SECURITY)' };
  // A response with a status has headers; without them, UNAVAILABLE means that the connection failed.
  if (code === status.UNAVAILABLE && Object.keys(metadata.getMap()).length === 0) {
    return CERTIFICATE_REQUIRED.test(details)
      ? { rejection: 'client certificate required' }
      : { failure: connectionFailure(details) };
  }
  const rejection = REJECTIONS.get(code);
  return rejection === undefined
    ? { failure: `health status is unavailable (gRPC status ${code})` }
    : { rejection };
}

/** Returns one line about why a connection failed. */
function connectionFailure(details: string): string {
  const cause = LAST_ERROR.exec(details)?.[1] ?? details;
  if (CLOSED_EARLY.test(cause)) return 'the server closed the connection before the HTTP/2 handshake';
  const reason = OPENSSL_REASON.exec(cause)?.[1] ?? cause;
  return `the connection failed: ${reason.replaceAll(/\s+/g, ' ').trim()}`;
}
