import { hash } from 'node:crypto';
import { createNames } from '../core/names.ts';
import { requiresPolicy } from '../core/policy-object.ts';
import { compareStrings } from './format.ts';

/** The fields of a Lease that describe a replica. */
export interface LeaseInfo {
  readonly metadata: {
    readonly name: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly holderIdentity?: string | null;
    readonly renewTime?: string | null;
  };
}

/** One operator process, as its Lease describes it. */
export interface ReplicaInfo {
  /** The replica ID and the random suffix of this process. */
  readonly replica: string;
  /** Milliseconds since 1970, by the replica's own clock; undefined if the Lease has no valid renewTime. */
  readonly renewedMs: number | undefined;
  /** True if it runs with `--require-policy`: it rejects every client while no policy exists. */
  readonly requiresPolicy?: true | undefined;
}

/** The replicas of a namespace, and the holder of the leader Lease ("" if there is none). */
export interface ReplicaList {
  readonly replicas: readonly ReplicaInfo[];
  readonly leader: string;
}

/** The same as in `src/k8s/lease-object.ts`: a Lease expires if it is not renewed for this long. */
const LEASE_DURATION_MS = 15_000;

const names = createNames((text) => hash('sha256', text, 'buffer'));

/** Returns the replicas that the Leases of a namespace describe, sorted by name. Leases of other programs are ignored. */
export function replicasFromLeases(leases: Iterable<LeaseInfo>, leaderLease: string): ReplicaList {
  const replicas: ReplicaInfo[] = [];
  let leader = '';
  for (const { metadata, spec } of leases) {
    const holder = spec?.holderIdentity ?? '';
    if (metadata.name === leaderLease) leader = holder;
    // Not by label, which admission may rewrite.
    else if (holder !== '' && metadata.name === names.leaseName(holder)) {
      const renewedMs = Date.parse(spec?.renewTime ?? '');
      replicas.push({
        replica: holder,
        renewedMs: Number.isNaN(renewedMs) ? undefined : renewedMs,
        ...(requiresPolicy(metadata.annotations) ? { requiresPolicy: true } : {}),
      });
    }
  }
  replicas.sort((a, b) => compareStrings(a.replica, b.replica));
  return { replicas, leader };
}

/**
 * Reports whether the Lease was renewed within 15 s of `nowMs`, before or after it. The two times come from two machines,
 * so clock skew can make the result wrong.
 */
export function isProbablyAlive({ renewedMs }: ReplicaInfo, nowMs: number): boolean {
  return renewedMs !== undefined && Math.abs(nowMs - renewedMs) < LEASE_DURATION_MS;
}
