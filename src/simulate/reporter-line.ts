import type { ReportStream, StreamHandlers } from '../grpc/report-message.ts';
import type { ReportingConnection } from '../grpc/reporting-client.ts';
import { parseAddress } from './address.ts';
import { openTcpLink } from './tcp-link.ts';

/** One reporter's way to the service, and the ways in which it can fail. */
export interface ReporterLine {
  openStream(handlers: StreamHandlers): ReportStream;
  /** Breaks the connection; the next stream connects anew. */
  drop(): void;
  /** As `drop`, but the service is left with a half-open connection. Throws on a line that cannot. */
  abandon(): void;
  /** The reporter is done with it, for now or for good. */
  hangUp(): void;
  /** Ends it for good; no handle is left. */
  close(): Promise<void>;
}

/** A connection of the reporter's own. It ends politely at this side: RST_STREAM, GOAWAY, FIN. */
export function directLine(connection: ReportingConnection): ReporterLine {
  return {
    openStream: (handlers) => connection.openStream(handlers),
    drop: () => connection.drop(),
    abandon: cannotAbandon,
    hangUp: () => connection.close(),
    close: async () => connection.close(),
  };
}

/** A share in a connection that carries other reporters too: `drop` breaks it for all, `hangUp` leaves it to them. */
export function sharedLine(connection: ReportingConnection): ReporterLine {
  return { ...directLine(connection), hangUp() {} };
}

/** A connection through a link of its own, which breaks with RST or is left half-open. */
export async function faultyLine(
  address: string,
  dial: (address: string) => ReportingConnection,
): Promise<ReporterLine> {
  const target = parseAddress(address);
  if ('problem' in target) throw new Error(target.problem);
  const link = await openTcpLink(target);
  const connection = dial(link.address);
  return {
    ...directLine(connection),
    drop: () => link.reset(),
    abandon: () => link.abandon(),
    async close() {
      connection.close();
      await link.close();
    },
  };
}

function cannotAbandon(): never {
  throw new Error('a half-open connection needs a fleet with faultyLinks: true');
}
