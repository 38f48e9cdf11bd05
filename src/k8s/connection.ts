import type { CredentialSource } from './credentials.ts';

/** Where the API server is, and how to prove who one is. */
export interface Connection {
  readonly server: URL;
  /** Proxy to go through, as the kubeconfig has it. */
  readonly proxyUrl: string | undefined;
  /** The pod's namespace, or the context's; undefined when neither says one. */
  readonly namespace: string | undefined;
  /** Where this was found, for the log: `in-cluster`, or the kubeconfig's path and context. */
  readonly source: string;
  readonly credentials: CredentialSource;
}

/** There is no way to the API server: one line that says what was looked at, what is wrong there, and what to do. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
}

/** The server as log lines name it, with the proxy in front of it; without the proxy's password. */
export function describeServer({ server, proxyUrl }: Pick<Connection, 'server' | 'proxyUrl'>): string {
  if (proxyUrl === undefined) return server.origin;
  const { protocol, host } = new URL(proxyUrl);
  return `${server.origin} through the proxy ${protocol}//${host}`;
}
