import type { PolicyObject } from '../core/policy-object.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { listAll, type Cluster } from '../inspect/cluster.ts';
import { policyResource } from '../k8s/policy-api.ts';
import type { PolicyFacts, RowFacts } from './facts.ts';

/** Plural of the kind that says who may report what. */
export const POLICIES = 'reversetunnelpolicies';

/**
 * Rows first: a reporter's object is there before its rows, so one that is missing afterwards is missing. Of a row only
 * its reporter and its state are kept: there may be 500,000.
 */
export async function askRowsAndReporters(
  cluster: Cluster,
  signal: AbortSignal,
): Promise<{ rows: RowFacts; reporters: ReporterObject[] }> {
  const kept = await listAll(
    cluster.rows,
    ({ spec, status }) => ({ reporter: spec.reporter, unknown: status?.state === 'Unknown' }),
    signal,
  );
  const reporters = await listAll(cluster.reporters, (object) => object, signal);
  const known = new Set(reporters.map(({ spec }) => reporterKey(spec)));
  const orphans = new Map<string, number>();
  for (const { reporter } of kept) {
    if (known.has(reporterKey(reporter))) continue;
    const name = `${reporter.cluster}/${reporter.id}`;
    orphans.set(name, (orphans.get(name) ?? 0) + 1);
  }
  const unknown = kept.filter((one) => one.unknown).length;
  return { rows: { rows: kept.length, unknown, orphans }, reporters };
}

/** The policies of the namespace, and what the leader made of each. To be asked only where the kind is served. */
export async function askPolicies(
  { client, namespace }: Cluster,
  signal: AbortSignal,
): Promise<PolicyFacts[]> {
  const policies = client.resource<PolicyObject>(policyResource(namespace));
  return await listAll(
    policies,
    ({ metadata, status }) => {
      const accepted = status?.conditions?.find(({ type }) => type === 'Accepted');
      return { name: metadata.name, accepted: accepted?.status, message: accepted?.message ?? '' };
    },
    signal,
  );
}
