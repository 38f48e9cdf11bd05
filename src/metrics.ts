import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { replaceEventLoopMetrics, UNUSED_MONITOR_INTERVAL_MS } from './event-loop-metrics.ts';

/** Seconds: from an ACK (milliseconds) and the objects of a first full push (seconds) to a backlog of minutes. */
const DURATION_BUCKETS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300,
];

/** The values of the label `name` of the workqueue metrics. */
const WORKQUEUES = ['tunnels', 'reporters', 'expectations'] as const;

/**
 * All metrics of the operator; a test checks that docs/metrics.md names each. Labels have closed sets of values: an
 * outcome is `ok` or an `ApiErrorKind`, a reason is a value of a union type. No label contains a reported string, so the
 * number of series does not grow with tenants, reporters or tunnels.
 */
export type Metrics = ReturnType<typeof createMetrics>;

/** Creates the metrics in a new registry. */
export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = <L extends string = never>(name: string, help: string, labelNames: L[] = []) =>
    new Gauge({ name, help, labelNames, registers });
  const seconds = (name: string, help: string) =>
    new Histogram({ name, help, buckets: DURATION_BUCKETS, registers });
  const apiWrites = counter(
    'reverse_tunnel_api_writes_total',
    'Writes of ReverseTunnels and ReverseTunnelSlices sent to the API server.',
    ['resource', 'verb', 'outcome'],
  );
  const workqueueAdds = counter(
    'workqueue_adds_total',
    'Keys added to the queue by a report or an object change, including duplicates.',
    ['name'],
  );
  const workqueueRetries = counter('workqueue_retries_total', 'Keys requeued after a failed attempt.', [
    'name',
  ]);
  for (const name of WORKQUEUES) {
    workqueueAdds.inc({ name }, 0);
    workqueueRetries.inc({ name }, 0);
  }
  return {
    registry,
    reportedTunnels: gauge(
      'reverse_tunnel_reported_tunnels',
      'Tunnels in the last report of each reporter that this replica has received reports from.',
    ),
    objects: gauge('reverse_tunnel_objects', 'ReverseTunnel objects in the namespace, as last observed.'),
    slices: gauge('reverse_tunnel_slices', 'ReverseTunnelSlices in the namespace, as last observed.'),
    sliceTunnels: gauge(
      'reverse_tunnel_slice_tunnels',
      'Tunnels that are entries of ReverseTunnelSlices in the namespace, as last observed.',
    ),
    reportersConnected: gauge('reverse_tunnel_reporters_connected', 'Reporters with an open stream.'),
    cacheSynced: gauge(
      'reverse_tunnel_cache_synced',
      '1 once the initial lists of ReverseTunnel objects and slices have completed, otherwise 0.',
    ),
    reports: counter('reverse_tunnel_reports_total', 'Reports accepted.', ['kind']),
    acks: counter('reverse_tunnel_acks_total', 'Reports acknowledged.', []),
    nacks: counter('reverse_tunnel_nacks_total', 'Reports rejected.', ['reason']),
    tunnelRejections: counter(
      'reverse_tunnel_tunnel_rejections_total',
      'Tunnels rejected, so that neither a ReverseTunnel object nor an entry of a slice is written for them.',
      ['reason'],
    ),
    createdAtOmitted: counter(
      'reverse_tunnel_created_at_omitted_total',
      'ReverseTunnel objects written without createdAt because the reported time was in the future.',
      [],
    ),
    nonceAnomalies: counter(
      'reverse_tunnel_nonce_anomalies_total',
      'Acknowledged nonces that did not follow the previous nonce.',
      ['kind'],
    ),
    policies: new Gauge({
      name: 'reverse_tunnel_policies',
      help: 'ReverseTunnelPolicies in the namespace, by whether they are accepted and enforced.',
      labelNames: ['accepted'],
      registers,
    }),
    expectations: new Gauge({
      name: 'reverse_tunnel_expectations',
      help: 'ReverseTunnelExpectations by state on the leader; 0 on the other replicas.',
      labelNames: ['state'],
      registers,
    }),
    streamsClosed: counter('reverse_tunnel_streams_closed_total', 'Streams closed.', ['reason']),
    connectionsRejected: counter(
      'reverse_tunnel_connections_rejected_total',
      'Connections to the reporting service that were rejected, or terminated for exceeding a limit.',
      ['reason'],
    ),
    streamsRejected: counter(
      'reverse_tunnel_streams_rejected_total',
      'Streams rejected before authentication succeeded.',
      ['reason'],
    ),
    requiredPolicyMissing: gauge(
      'reverse_tunnel_required_policy_missing',
      '1 if every client is rejected because no ReverseTunnelPolicy exists (--require-policy), otherwise 0.',
    ),
    insecure: gauge('reverse_tunnel_insecure', '1 if any client may report (--auth insecure), otherwise 0.'),
    ackSeconds: seconds(
      'reverse_tunnel_ack_seconds',
      'Time from receiving a complete report to sending its ACK.',
    ),
    syncLagSeconds: seconds(
      'reverse_tunnel_sync_lag_seconds',
      'Time from receiving a report, or observing drift, to writing the ReverseTunnel object or slice.',
    ),
    upToObjectSeconds: seconds(
      'reverse_tunnel_up_to_object_seconds',
      'Time from the reported created_at of a tunnel to writing its ReverseTunnel object or slice, if that time is plausible.',
    ),
    apiWrites: writesOf(apiWrites, 'reversetunnels'),
    sliceWrites: writesOf(apiWrites, 'reversetunnelslices'),
    workqueueDepth: gauge('workqueue_depth', 'Keys waiting for a worker.', ['name']),
    workqueueDelayed: gauge('reverse_tunnel_workqueue_delayed', 'Keys delayed by backoff or rate limiting.', [
      'name',
    ]),
    workqueueAdds,
    workqueueRetries,
    claims: counter('reverse_tunnel_claims_total', 'Reporter claims sent to the API server.', ['outcome']),
    identityConflicts: counter(
      'reverse_tunnel_identity_conflicts_total',
      'Times two Envoys were found to report under the same node.cluster and node.id.',
      [],
    ),
    reportersInConflict: gauge(
      'reverse_tunnel_reporters_in_conflict',
      'Reporters of this replica under whose node.cluster and node.id two Envoys report.',
    ),
    reporters: new Gauge({
      name: 'reverse_tunnel_reporters',
      help: 'Reporters by state on this replica.',
      labelNames: ['state'],
      registers,
    }),
    tunnelsRejected: new Gauge({
      name: 'reverse_tunnel_tunnels_rejected',
      help: 'Tunnels currently held by reporters connected to this replica that are neither an object nor an entry of a slice.',
      labelNames: ['reason'],
      registers,
    }),
    objectsRewritten: gauge(
      'reverse_tunnel_objects_rewritten',
      'Objects, slices and reporter objects that admission stores with other values than this replica writes.',
    ),
    writesRewritten: counter(
      'reverse_tunnel_writes_rewritten_total',
      'Writes whose response differs from what was sent, because a webhook or policy rewrote the object.',
      ['resource', 'part'],
    ),
    tunnelsFlapping: gauge(
      'reverse_tunnel_tunnels_flapping',
      'Tunnels that have gone down more than 6 times within 10 minutes, so that their writes are limited.',
    ),
    flappingWritesSuppressed: counter(
      'reverse_tunnel_writes_suppressed_total',
      'Changes of flapping tunnels that were not written at once; a later write contains the latest state.',
      [],
    ),
    removalsHeld: gauge(
      'reverse_tunnel_removals_held',
      'Tunnels in either form that the last full push of a reporter lacks and that are kept for --removal-hold.',
    ),
    removalHolds: counter(
      'reverse_tunnel_removal_holds_total',
      'Full pushes that lacked so many tunnels that the removals were held.',
      [],
    ),
    oldestPendingWriteSeconds: gauge(
      'reverse_tunnel_oldest_pending_write_seconds',
      'Longest time for which a reporter has continuously had pending writes of objects or slices.',
    ),
    reportersOwned: gauge(
      'reverse_tunnel_reporters_owned',
      'Reporters whose ReverseTunnel objects and slices this replica writes.',
    ),
    leaseHeld: gauge(
      'reverse_tunnel_lease_held',
      '1 while this replica holds its own Lease, otherwise 0 and it writes nothing.',
    ),
    tunnelLogLines: counter(
      'reverse_tunnel_tunnel_log_lines_total',
      'Lines of the tunnel log (--tunnel-log) by whether they were written or dropped.',
      ['outcome'],
    ),
    eventsDropped: counter('reverse_tunnel_events_dropped_total', 'Events dropped by the rate limit.', []),
    leaderElectionMasterStatus: new Gauge({
      name: 'leader_election_master_status',
      help: '1 on the replica that holds the named Lease, otherwise 0.',
      labelNames: ['name'],
      registers,
    }),
    restClientRequests: counter('rest_client_requests_total', 'Requests to the API server.', [
      'method',
      'code',
    ]),
  };
}

/** Counts the writes of one resource. */
function writesOf(
  counter: Counter<'resource' | 'verb' | 'outcome'>,
  resource: 'reversetunnels' | 'reversetunnelslices',
) {
  return {
    inc: ({ verb, outcome }: { readonly verb: string; readonly outcome: string }): void =>
      counter.inc({ resource, verb, outcome }),
  };
}

/** Adds metrics of the process: CPU, memory, event loop. Their observers are never removed. */
export function addProcessMetrics({ registry }: Metrics): void {
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: UNUSED_MONITOR_INTERVAL_MS });
  replaceEventLoopMetrics(registry);
}
