import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import type { ChannelOptions, VerifyOptions } from '@grpc/grpc-js';
import { parseHostPort } from '../host-port.ts';

/** Sent in place of an IP address; no server has a certificate for a name that ends in `.invalid` (RFC 6761). */
const PLACEHOLDER = 'ip-address.invalid';

/** Options of grpc-js about the name of a TLS server. */
export interface TlsServerName {
  /** For the client. */
  readonly channelOptions: ChannelOptions;
  /** For the credentials. */
  readonly verifyOptions: VerifyOptions;
}

/**
 * Returns the options with which a client verifies that a server's certificate contains a name or an IP address. grpc-js
 * would send an IP address as the TLS server name, which RFC 6066 forbids and Node warns about (DEP0123).
 *
 * @param address host:port, with an IPv6 host in brackets
 * @param serverName the name that the certificate must contain; default: the host of the address
 */
export function tlsServerName(address: string, serverName?: string): TlsServerName {
  const name = serverName ?? parseHostPort(address)?.host ?? address;
  if (isIP(name) === 0) {
    return { channelOptions: { 'grpc.ssl_target_name_override': name }, verifyOptions: {} };
  }
  return {
    channelOptions: { 'grpc.ssl_target_name_override': PLACEHOLDER },
    verifyOptions: {
      checkServerIdentity: (_placeholder, certificate) => checkServerIdentity(name, certificate),
    },
  };
}
