import type { ReportStream, StreamHandlers } from '../grpc/report-message.ts';
import type { ReportingConnection } from '../grpc/reporting-client.ts';
import { parseHostPort } from '../host-port.ts';
import { startTcpProxy } from './tcp-proxy.ts';

/** The connection of one reporter to the service, with injectable failures. */
export interface ReporterTransport {
  /** See `ReportingConnection.openStream`. */
  openStream(handlers: StreamHandlers): ReportStream;
  /** Breaks the connection; the next stream reconnects. */
  reset(): void;
  /** Like `reset`, but leaves the service with a half-open connection. Throws unless the transport has a proxy. */
  halfOpen(): void;
  /** Called when the reporter stops; it may start again later. */
  release(): void;
  /** Closes the transport permanently; no handle remains. */
  close(): Promise<void>;
}

/** Returns a transport with a dedicated connection, which this side closes in an orderly way: RST_STREAM, GOAWAY, FIN. */
export function directTransport(connection: ReportingConnection): ReporterTransport {
  return {
    openStream: (handlers) => connection.openStream(handlers),
    reset: () => connection.reset(),
    halfOpen: cannotHalfOpen,
    release: () => connection.close(),
    close: async () => connection.close(),
  };
}

/** Returns a transport for a connection that several reporters share: `reset` breaks it for all, `release` keeps it open. */
export function sharedTransport(connection: ReportingConnection): ReporterTransport {
  return { ...directTransport(connection), release() {} };
}

/** Returns a transport with a dedicated connection through a `TcpProxy`, which can reset it or leave it half-open. */
export async function faultyTransport(
  address: string,
  dial: (address: string) => ReportingConnection,
): Promise<ReporterTransport> {
  const target = parseHostPort(address);
  if (target === undefined) throw new Error(`address ${address}: must be host:port`);
  const proxy = await startTcpProxy(target);
  const connection = dial(proxy.address);
  return {
    ...directTransport(connection),
    reset: () => proxy.reset(),
    halfOpen: () => proxy.halfOpen(),
    async close() {
      connection.close();
      await proxy.close();
    },
  };
}

function cannotHalfOpen(): never {
  throw new Error('a half-open connection needs a fleet with faultyLinks: true');
}
