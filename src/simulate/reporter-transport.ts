import type { ReportStream, StreamHandlers } from '../grpc/report-message.ts';
import type { ReportingConnection } from '../grpc/reporting-client.ts';
import { parseAddress } from './address.ts';
import { startTcpProxy } from './tcp-proxy.ts';

/** One reporter's way to the service, and the ways in which it can fail. */
export interface ReporterTransport {
  openStream(handlers: StreamHandlers): ReportStream;
  /** Breaks the connection; the next stream connects anew. */
  reset(): void;
  /** As `drop`, but the service is left with a half-open connection. Throws on a line that cannot. */
  halfOpen(): void;
  /** The reporter is done with it, for now or for good. */
  release(): void;
  /** Ends it for good; no handle is left. */
  close(): Promise<void>;
}

/** A connection of the reporter's own. It ends politely at this side: RST_STREAM, GOAWAY, FIN. */
export function directTransport(connection: ReportingConnection): ReporterTransport {
  return {
    openStream: (handlers) => connection.openStream(handlers),
    reset: () => connection.reset(),
    halfOpen: cannotHalfOpen,
    release: () => connection.close(),
    close: async () => connection.close(),
  };
}

/** A share in a connection that carries other reporters too: `drop` breaks it for all, `hangUp` leaves it to them. */
export function sharedTransport(connection: ReportingConnection): ReporterTransport {
  return { ...directTransport(connection), release() {} };
}

/** A connection through a link of its own, which breaks with RST or is left half-open. */
export async function faultyTransport(
  address: string,
  dial: (address: string) => ReportingConnection,
): Promise<ReporterTransport> {
  const target = parseAddress(address);
  if ('error' in target) throw new Error(target.error);
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
