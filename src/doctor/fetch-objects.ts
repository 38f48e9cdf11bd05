import type { PolicyObject } from '../core/policy-object.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { listAll, type Cluster } from '../cli/cluster.ts';
import { policyResource } from '../k8s/resources.ts';
import type { PolicyInfo, TunnelCounts } from './inputs.ts';

/** Plural of the kind that says who may report what. */
export const POLICIES = 'reversetunnelpolicies';

/**
 * Rows first: a reporter's object is there before its rows, so one that is missing afterwards is missing. Of a row only
 * its reporter and its state are kept: there may be 500,000.
 */
export async function fetchTunnelsAndReporters(
  cluster: Cluster,
  signal: AbortSignal,
): Promise<{ tunnels: TunnelCounts; reporters: ReporterObject[] }> {
  const tunnelStates = await listAll(
    cluster.tunnels,
    ({ spec, status }) => ({ reporter: spec.reporter, unknown: status?.state === 'Unknown' }),
    signal,
  );
  const reporters = await listAll(cluster.reporters, (object) => object, signal);
  const knownReporters = new Set(reporters.map(({ spec }) => reporterKey(spec)));
  const orphaned = new Map<string, number>();
  for (const { reporter } of tunnelStates) {
    if (knownReporters.has(reporterKey(reporter))) continue;
    const name = `${reporter.cluster}/${reporter.id}`;
    orphaned.set(name, (orphaned.get(name) ?? 0) + 1);
  }
  const unknown = tunnelStates.filter((tunnel) => tunnel.unknown).length;
  return { tunnels: { tunnels: tunnelStates.length, unknown, orphaned }, reporters };
}

/** The policies of the namespace, and what the leader made of each. To be asked only where the kind is served. */
export async function fetchPolicies(
  { client, namespace }: Cluster,
  signal: AbortSignal,
): Promise<PolicyInfo[]> {
  const policies = client.resource<PolicyObject>(policyResource(namespace));
  return await listAll(
    policies,
    ({ metadata, status }) => {
      const accepted = status?.conditions?.find(({ type }) => type === 'Accepted');
      return { name: metadata.name, accepted: accepted?.status, conditionMessage: accepted?.message ?? '' };
    },
    signal,
  );
}
