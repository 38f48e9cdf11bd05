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
  readonly time: LifecycleTime | undefined;
}

/** A moment since 1970 in UTC; `nanos` is a multiple of 1000. */
export interface LifecycleTime {
  readonly seconds: number;
  readonly nanos: number;
}

/** Seconds since 1970 with an optional fraction, as `%START_TIME(%s.%6f)%` prints them. */
const UNIX_TIME = /^(\d{1,11})(?:\.(\d{1,9}))?$/;
/** RFC 3339, as `%START_TIME%` prints it. A time without an offset from UTC is ambiguous, and not accepted. */
const RFC3339_TIME = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/;

/**
 * Parses one line: `{"time": …, "lifecycle": {"event": …, "tenant_id": …, "cluster_id": …, "node_id": …}}`. The time is
 * `SECONDS.FRACTION` since 1970, or RFC 3339.
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
  if (!isScalar(worker) || !isScalar(fd)) return { error: 'no field lifecycle.worker or lifecycle.fd' };
  return {
    type: event === 'tunnel_setup' ? 'setup' : 'closed',
    tenantID: typeof tenantID === 'string' ? tenantID : '',
    clusterID,
    nodeID,
    connection: JSON.stringify([worker, fd]),
    time: parseTime(propertyOf(entry, 'time')),
  };
}

function parseTime(value: unknown): LifecycleTime | undefined {
  if (!isScalar(value)) return undefined;
  const text = String(value);
  const unix = UNIX_TIME.exec(text);
  if (unix !== null) return { seconds: Number(unix[1]), nanos: nanosOf(unix[2]) };
  const [, time = '', fraction, offset = ''] = RFC3339_TIME.exec(text) ?? [];
  const seconds = Date.parse(time + offset) / 1000;
  return Number.isNaN(seconds) ? undefined : { seconds, nanos: nanosOf(fraction) };
}

/** Returns the digits after the decimal point as nanoseconds, truncated to microseconds. */
function nanosOf(fraction = ''): number {
  return Number(fraction.slice(0, 6).padEnd(6, '0')) * 1000;
}

/** Neither an object nor an array: their conversion to text may fail. */
function isScalar(value: unknown): boolean {
  return value === null || !['object', 'undefined'].includes(typeof value);
}

function propertyOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}
