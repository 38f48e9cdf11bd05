import { isManaged } from '../core/names.ts';

/** A Lease, as far as it tells of replicas. */
export interface LeaseInfo {
  readonly metadata: {
    readonly name: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly holderIdentity?: string | null;
    readonly renewTime?: string | null;
  };
}

/** One process of the operator, by its Lease. */
export interface ReplicaInfo {
  /** Its id and the suffix of its start. */
  readonly replica: string;
  /** Milliseconds since 1970, by the replica's own clock; undefined when the Lease holds none. */
  readonly renewedMs: number | undefined;
}

/** The replicas of a namespace, and who of them leads ("" when nobody). */
export interface ReplicaList {
  readonly replicas: readonly ReplicaInfo[];
  readonly leader: string;
}

/** As in `src/k8s/lease-object.ts`: a Lease that was not renewed for so long proves nobody. */
const LEASE_DURATION_MS = 15_000;

/** Reads replicas out of the Leases of a namespace; those of others are passed over. */
export function replicasFromLeases(leases: Iterable<LeaseInfo>, leaderLease: string): ReplicaList {
  const replicas: ReplicaInfo[] = [];
  let leader = '';
  for (const { metadata, spec } of leases) {
    const holder = spec?.holderIdentity ?? '';
    if (!isManaged(metadata.labels)) continue;
    if (metadata.name === leaderLease) leader = holder;
    else if (holder !== '') {
      const renewedMs = Date.parse(spec?.renewTime ?? '');
      replicas.push({ replica: holder, renewedMs: Number.isNaN(renewedMs) ? undefined : renewedMs });
    }
  }
  replicas.sort((a, b) => compareStrings(a.replica, b.replica));
  return { replicas, leader };
}

/** True when the Lease was renewed within its 15 s, in either direction: by two machines' clocks, so it can be wrong. */
export function isProbablyAlive({ renewedMs }: ReplicaInfo, nowMs: number): boolean {
  return renewedMs !== undefined && Math.abs(nowMs - renewedMs) < LEASE_DURATION_MS;
}

/** For sorting: by code unit, the same everywhere. */
export function compareStrings(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
