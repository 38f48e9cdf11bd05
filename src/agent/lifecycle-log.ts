/** The lines of Envoy's lifecycle access log, in the format of `examples/envoy-responder-standard.yaml`. */

/** A connection of a reverse tunnel came up or went down. */
export interface LifecycleEvent {
  readonly type: 'setup' | 'closed';
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Identifies a connection among those of the initiator that are open. */
  readonly connection: string;
  /** When it happened, by the clock of the responder; undefined if the line has no valid time. */
  readonly time: { readonly seconds: number; readonly nanos: number } | undefined;
}

/** Seconds since 1970 with microseconds, as `%START_TIME(%s.%6f)%` prints them. */
const TIME = /^(\d{1,11})\.(\d{6})$/;

/**
 * Parses one line: `{"time": "SECONDS.MICROS", "lifecycle": {"event": …, "tenant_id": …, "cluster_id": …, "node_id": …}}`.
 *
 * @returns undefined for an event of another type, such as a ping; an error for anything else
 */
export function parseLifecycleLine(line: string): LifecycleEvent | undefined | { readonly error: string } {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return { error: 'not a JSON object' };
  }
  const lifecycle = propertyOf(entry, 'lifecycle');
  const event = propertyOf(lifecycle, 'event');
  if (typeof event !== 'string') return { error: 'no field lifecycle.event' };
  if (event !== 'tunnel_setup' && event !== 'tunnel_closed') return undefined;
  const [tenantID, clusterID, nodeID] = ['tenant_id', 'cluster_id', 'node_id'].map((key) =>
    propertyOf(lifecycle, key),
  );
  if (typeof clusterID !== 'string' || typeof nodeID !== 'string') {
    return { error: 'no field lifecycle.cluster_id or lifecycle.node_id' };
  }
  const [worker, fd] = [propertyOf(lifecycle, 'worker'), propertyOf(lifecycle, 'fd')];
  if (worker === undefined || fd === undefined) return { error: 'no field lifecycle.worker or lifecycle.fd' };
  const [, seconds, micros] = TIME.exec(String(propertyOf(entry, 'time'))) ?? [];
  return {
    type: event === 'tunnel_setup' ? 'setup' : 'closed',
    tenantID: typeof tenantID === 'string' ? tenantID : '',
    clusterID,
    nodeID,
    connection: JSON.stringify([worker, fd]),
    time:
      seconds === undefined || micros === undefined
        ? undefined
        : { seconds: Number(seconds), nanos: Number(micros) * 1000 },
  };
}

function propertyOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}
