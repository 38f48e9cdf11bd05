import type { ReporterObject } from '../core/reporter-object.ts';
import { reporterKey } from '../core/tunnel.ts';
import { listAll, type Cluster } from '../inspect/cluster.ts';
import { ownResource } from '../k8s/api-group.ts';
import type { PolicyFacts, RowFacts } from './facts.ts';

/** Plural of the kind that says who may report what. */
export const POLICIES = 'reversetunnelpolicies';

/** Rows first: a reporter's object is there before its rows, so one that is missing afterwards is missing. */
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

interface PolicyObject {
  readonly metadata: { readonly name: string; readonly uid: string; readonly resourceVersion: string };
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly message?: string;
    }[];
  };
}

/** The policies of the namespace; to be asked only where the kind is served. */
export async function askPolicies(
  { client, namespace }: Cluster,
  signal: AbortSignal,
): Promise<PolicyFacts[]> {
  const policies = client.resource<PolicyObject>(ownResource(POLICIES, namespace));
  return await listAll(
    policies,
    ({ metadata, status }) => {
      const accepted = status?.conditions?.find(({ type }) => type === 'Accepted');
      return { name: metadata.name, accepted: accepted?.status, message: accepted?.message ?? '' };
    },
    signal,
  );
}
