import { credentials, Metadata, type ChannelCredentials } from '@grpc/grpc-js';

/** What a reporter shows and trusts, as PEM text. */
export interface ReporterTls {
  /** Undefined: the certificates that Node trusts. */
  readonly ca: string | undefined;
  /** The reporter's own certificate and key; both or neither. */
  readonly identity: { readonly cert: string; readonly key: string } | undefined;
}

/** Credentials of a TLS connection to the service. @throws Error when a PEM text is none, or key and certificate do not fit */
export function tlsCredentials({ ca, identity }: ReporterTls): ChannelCredentials {
  return credentials.createSsl(bytes(ca), bytes(identity?.key), bytes(identity?.cert));
}

function bytes(text: string | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text);
}

/** What is sent with each stream to show a bearer token. */
export function bearerToken(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}
