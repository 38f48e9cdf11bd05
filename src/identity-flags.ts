import { nonEmpty, type ReadValue } from './flag-values.ts';
import type { Flags, FlagValues } from './flags.ts';
import type { IdentityFiles } from './grpc/reporter-identity.ts';

/** The flags by which a client of the reporting service authenticates: `simulate`, `selftest`, `agent`. */
export const IDENTITY_FLAGS = {
  'tls-ca': {
    metavar: 'FILE',
    description: "PEM CA bundle of the service's certificate; enables TLS; reloaded on each connection",
    defaultText: 'plaintext',
    read: nonEmpty,
  },
  'tls-cert': {
    metavar: 'FILE',
    description: 'PEM client certificate; requires --tls-key and --tls-ca; reloaded on each connection',
    read: nonEmpty,
  },
  'tls-key': {
    metavar: 'FILE',
    description: 'PEM private key for --tls-cert; reloaded on each connection',
    read: nonEmpty,
  },
  'tls-server-name': {
    metavar: 'NAME',
    description: "expected DNS name in the service's certificate; requires --tls-ca",
    defaultText: 'host of --address',
    read: dnsName,
  },
  'token-file': {
    metavar: 'FILE',
    description:
      'file with the bearer token to send with each stream; requires --tls-ca; reloaded on each stream',
    read: nonEmpty,
  },
} satisfies Flags;

/** Returns the identity that the flags describe, or one line per invalid combination. */
export function readIdentity(
  values: FlagValues<typeof IDENTITY_FLAGS>,
): { readonly identity: IdentityFiles } | { readonly errors: readonly string[] } {
  const identity = {
    caFile: values['tls-ca'],
    certFile: values['tls-cert'],
    keyFile: values['tls-key'],
    serverName: values['tls-server-name'],
    tokenFile: values['token-file'],
  };
  const errors: string[] = [];
  if ((identity.certFile === undefined) !== (identity.keyFile === undefined)) {
    errors.push('--tls-cert, --tls-key: must be set together');
  }
  // Without TLS, a token could be read by anyone on the network path.
  for (const flag of ['tls-cert', 'tls-server-name', 'token-file'] as const) {
    const value = values[flag];
    if (value !== undefined && identity.caFile === undefined) {
      errors.push(`--${flag}: ${JSON.stringify(value)} requires --tls-ca`);
    }
  }
  return errors.length > 0 ? { errors } : { identity };
}

function dnsName(text: string): ReturnType<ReadValue<string>> {
  return /^[A-Za-z0-9.-]{1,253}$/.test(text) ? { value: text } : { expected: 'must be a DNS name' };
}
