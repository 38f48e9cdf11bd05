import { readFileSync } from 'node:fs';
import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';

/** Paths of what a reporter proves itself by; PEM, the token aside. */
export interface IdentityFiles {
  /** The authority of the service's certificate; undefined: plaintext. */
  readonly caFile: string | undefined;
  /** The reporter's certificate and key: both or neither. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** What the service's certificate is to name; undefined: the address. */
  readonly serverName: string | undefined;
  readonly tokenFile: string | undefined;
}

/** How a reporter's connections and streams prove whose they are. */
export interface ReporterIdentity {
  /** For a new connection. */
  credentials(): ChannelCredentials;
  /** For a new stream. */
  metadata(): Metadata;
  readonly channelOptions: ChannelOptions;
}

/**
 * The identity in these files, which are read again for each connection and stream, as Envoy follows its secrets.
 * One that cannot be read then is as it was before.
 *
 * @returns undefined when no file is named: plaintext
 * @throws Error the system's, when a file cannot be read; later changes throw nothing
 */
export function reporterIdentity(files: IdentityFiles): ReporterIdentity | undefined {
  const { caFile, certFile, keyFile, serverName, tokenFile } = files;
  if (caFile === undefined) return undefined;
  const ca = fileReader(caFile);
  const cert = certFile === undefined ? undefined : fileReader(certFile);
  const key = keyFile === undefined ? undefined : fileReader(keyFile);
  const token = tokenFile === undefined ? undefined : fileReader(tokenFile);
  return {
    credentials: () => credentials.createSsl(ca(), key?.() ?? null, cert?.() ?? null),
    metadata() {
      const metadata = new Metadata();
      if (token !== undefined) metadata.set('authorization', `Bearer ${token().toString('utf8').trim()}`);
      return metadata;
    },
    channelOptions: serverName === undefined ? {} : { 'grpc.ssl_target_name_override': serverName },
  };
}

function fileReader(path: string): () => Buffer {
  let content = readFileSync(path);
  return () => {
    try {
      content = readFileSync(path);
    } catch {
      // It is being replaced; the next connection reads it.
    }
    return content;
  };
}
