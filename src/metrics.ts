import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** From an ACK, a millisecond, past a first full push to be written, seconds, to a backlog of minutes. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/**
 * Every metric of the operator; docs/metrics.md is tested to name each. Labels have closed sets of values: an outcome is
 * `ok` or a `Consequence`, a reason one of a type's words. No label holds a reported string, so the number of series does not grow with tenants,
 * reporters or tunnels.
 */
export type Metrics = ReturnType<typeof createMetrics>;

/** Metrics that nothing has been counted in yet. */
export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers });
  const seconds = (name: string, help: string) => new Histogram({ name, help, buckets: SECONDS, registers });
  return {
    registry,
    tunnels: gauge(
      'reverse_tunnel_tunnels',
      'Tunnels held by the reporters that this replica has heard, as each said last.',
    ),
    rows: gauge('reverse_tunnel_rows', 'ReverseTunnel objects in the namespace, as last seen.'),
    reportersConnected: gauge('reverse_tunnel_reporters_connected', 'Reporters with an open stream.'),
    synced: gauge(
      'reverse_tunnel_cache_synced',
      '1 when the rows of the API server have been listed, else 0.',
    ),
    reports: counter('reverse_tunnel_reports_total', 'Reports accepted.', ['kind']),
    acks: counter('reverse_tunnel_acks_total', 'Reports acknowledged.', []),
    nacks: counter('reverse_tunnel_nacks_total', 'Reports refused.', ['reason']),
    rejectedTunnels: counter(
      'reverse_tunnel_rejected_tunnels_total',
      'Tunnels set aside: kept from becoming a row.',
      ['reason'],
    ),
    nonceAnomalies: counter(
      'reverse_tunnel_nonce_anomalies_total',
      'Nonces that were acknowledged though they did not follow the last one.',
      ['kind'],
    ),
    policies: new Gauge({
      name: 'reverse_tunnel_policies',
      help: 'ReverseTunnelPolicies in the namespace, by whether they are in force or refused for a mistake.',
      labelNames: ['accepted'],
      registers,
    }),
    streamsClosed: counter('reverse_tunnel_stream_closed_total', 'Streams ended.', ['reason']),
    connectionsRefused: counter(
      'reverse_tunnel_connections_refused_total',
      'Connections to the reporting service that were refused, or cut for what they did.',
      ['reason'],
    ),
    callsRefused: counter(
      'reverse_tunnel_calls_refused_total',
      'Streams refused before anything on them was read, for want of a credential that holds.',
      ['reason'],
    ),
    insecure: gauge(
      'reverse_tunnel_insecure',
      '1 when everybody who reaches the reporting service may report (--auth insecure), else 0.',
    ),
    ackSeconds: seconds(
      'reverse_tunnel_ack_seconds',
      'From a report read whole to its ACK handed to the stream.',
    ),
    syncLagSeconds: seconds(
      'reverse_tunnel_sync_lag_seconds',
      'From a report received, or a row seen to differ, to the row written.',
    ),
    apiWrites: counter('reverse_tunnel_api_writes_total', 'Row writes sent to the API server.', [
      'verb',
      'outcome',
    ]),
    workqueueDepth: gauge('workqueue_depth', 'Keys waiting for a worker.'),
    workqueueDelayed: gauge('workqueue_delayed', 'Keys waiting for a time: backoff or pacing.'),
    workqueueAdds: counter(
      'workqueue_adds_total',
      'Keys handed to the queue by a report or by a changed row, repeated ones included.',
      [],
    ),
    workqueueRetries: counter('workqueue_retries_total', 'Keys put back after a failed try.', []),
    claims: counter('reverse_tunnel_claims_total', 'Claims of reporters sent to the API server.', [
      'outcome',
    ]),
    identityConflicts: counter(
      'reverse_tunnel_identity_conflicts_total',
      'Times that two Envoys were found to report under one cluster and id.',
      [],
    ),
    reporters: new Gauge({
      name: 'reverse_tunnel_reporters',
      help: 'Reporters by what this replica has of them.',
      labelNames: ['state'],
      registers,
    }),
    setAside: new Gauge({
      name: 'reverse_tunnel_tunnels_set_aside',
      help: 'Tunnels that the reporters connected here hold and that are no row.',
      labelNames: ['reason'],
      registers,
    }),
    backlogSeconds: gauge(
      'reverse_tunnel_backlog_seconds',
      'For how long rows of some reporter have been waiting to be written without a break; the longest of all.',
    ),
    reportersOwned: gauge('reverse_tunnel_reporters_owned', 'Reporters whose rows this replica writes.'),
    leaseHeld: gauge(
      'reverse_tunnel_lease_held',
      '1 while this replica holds its own Lease, else 0: it writes nothing.',
    ),
    eventsDropped: counter(
      'reverse_tunnel_events_dropped_total',
      'Events not sent, as there were too many.',
      [],
    ),
    leaderElectionMasterStatus: new Gauge({
      name: 'leader_election_master_status',
      help: '1 on the replica that holds the Lease of that name, else 0.',
      labelNames: ['name'],
      registers,
    }),
    restClientRequests: counter('rest_client_requests_total', 'Requests to the API server.', [
      'method',
      'code',
    ]),
  };
}

/** Adds the metrics of the process: CPU, memory, event loop. Their observers last as long as the process does. */
export function addProcessMetrics({ registry }: Metrics): void {
  collectDefaultMetrics({ register: registry });
}
