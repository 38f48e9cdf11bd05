import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { SkipReason } from './tunnel-tracker.ts';

export const SKIP_REASONS: readonly SkipReason[] = [
  'unknown_tenant',
  'several_tenants',
  'ambiguous_name',
  'malformed_name',
  'invalid_utf8',
  'duplicate_name',
];

/** The metrics of the agent. All labels have a closed set of values. */
export type AgentMetrics = ReturnType<typeof createAgentMetrics>;

/** Creates the metrics in a registry of their own. */
export function createAgentMetrics() {
  const registry = new Registry();
  const registers = [registry];
  return {
    registry,
    tunnels: new Gauge({
      name: 'reverse_tunnel_agent_tunnels',
      help: 'Tunnels of this Envoy that are reported',
      registers,
    }),
    skipped: new Gauge({
      name: 'reverse_tunnel_agent_tunnels_skipped',
      help: 'Tunnels of this Envoy that are up and not, or not completely, reported, by reason',
      labelNames: ['reason'],
      registers,
    }),
    polls: new Counter({
      name: 'reverse_tunnel_agent_polls_total',
      help: "Polls of Envoy's admin interface, by outcome (ok, error)",
      labelNames: ['outcome'],
      registers,
    }),
    pollSeconds: new Histogram({
      name: 'reverse_tunnel_agent_poll_seconds',
      help: "Duration of successful polls of Envoy's admin interface",
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
      registers,
    }),
    connected: new Gauge({
      name: 'reverse_tunnel_agent_connected',
      help: '1 while the operator acknowledges the reports of this Envoy, otherwise 0',
      registers,
    }),
    disconnects: new Counter({
      name: 'reverse_tunnel_agent_disconnects_total',
      help: 'Ended streams to the operator, by reason',
      labelNames: ['reason'],
      registers,
    }),
    invalidLogLines: new Counter({
      name: 'reverse_tunnel_agent_invalid_log_lines_total',
      help: 'Lines of the lifecycle log that were not understood',
      registers,
    }),
    envoyRestarts: new Counter({
      name: 'reverse_tunnel_agent_envoy_restarts_total',
      help: 'Restarts of Envoy that were noticed',
      registers,
    }),
  };
}
