import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from '@grpc/grpc-js';
import { trustOptions } from '../tls-trust.ts';
import { tlsServerName } from './tls-server-name.ts';

/** Paths of a reporter's credentials; PEM files, except for the token. */
export interface IdentityFiles {
  /** The CA of the service's certificate; undefined: plaintext. */
  readonly caFile: string | undefined;
  /** The reporter's certificate and key: both or none. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** The name that the service's certificate must contain; undefined: the host of the address. */
  readonly serverName: string | undefined;
  readonly tokenFile: string | undefined;
}

/** The credentials of a reporter's connections and streams. */
export interface ReporterIdentity {
  /** Returns the credentials for a new connection to `address` (host:port). */
  credentials(address: string): ChannelCredentials;
  /** Returns the metadata for a new stream. */
  metadata(): Metadata;
  /** Returns the options for a new connection to `address` (host:port). */
  channelOptions(address: string): ChannelOptions;
}

/**
 * Loads the identity from files, which are read again for each connection and stream, because they may be rotated. If a
 * file cannot be read then, its previous content is used.
 *
 * @returns undefined if `caFile` is undefined: plaintext
 * @throws Error the system's error, if a file cannot be read initially
 */
export function reporterIdentity(files: IdentityFiles): ReporterIdentity | undefined {
  const { caFile, certFile, keyFile, serverName, tokenFile } = files;
  if (caFile === undefined) return undefined;
  const ca = fileReader(caFile);
  const cert = certFile === undefined ? undefined : fileReader(certFile);
  const key = keyFile === undefined ? undefined : fileReader(keyFile);
  const token = tokenFile === undefined ? undefined : fileReader(tokenFile);
  return {
    credentials: (address) =>
      credentials.createFromSecureContext(
        createSecureContext({ ...trustOptions(ca()), key: key?.(), cert: cert?.() }),
        tlsServerName(address, serverName).verifyOptions,
      ),
    metadata() {
      const metadata = new Metadata();
      if (token !== undefined) metadata.set('authorization', `Bearer ${token().toString('utf8').trim()}`);
      return metadata;
    },
    channelOptions: (address) => tlsServerName(address, serverName).channelOptions,
  };
}

function fileReader(path: string): () => Buffer {
  let content = readFileSync(path);
  return () => {
    try {
      content = readFileSync(path);
    } catch {
      // The file is being replaced; the next connection reads it.
    }
    return content;
  };
}
