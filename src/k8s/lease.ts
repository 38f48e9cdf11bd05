import type { Clock } from '../clock.ts';
import { MANAGED_BY_LABELS } from '../core/names.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { findDifference } from '../core/rewrite.ts';
import { asError } from '../error-message.ts';
import { rfc3339Micro } from '../timestamps.ts';
import { ApiError } from './api-error.ts';
import type { ApiObject, ResourceClient } from './resource-client.ts';

/** A coordination.k8s.io/v1 Lease, limited to the fields that this project reads. */
export interface LeaseObject extends ApiObject {
  readonly spec?: LeaseSpec;
}

/**
 * Holder and times of a Lease. The times are on the holder's clock; other processes may only compare them for
 * equality.
 */
export interface LeaseSpec {
  /** Absent or empty without a holder. */
  readonly holderIdentity?: string | null;
  readonly leaseDurationSeconds?: number | null;
  readonly acquireTime?: string | null;
  readonly renewTime?: string | null;
  readonly leaseTransitions?: number | null;
}

/** Returns the location of the Leases, in the namespace of the tunnels. */
export function leaseResource(namespace: string) {
  return { group: 'coordination.k8s.io', version: 'v1', plural: 'leases', namespace } as const;
}

/** Name of the Lease that all replicas in a namespace share. */
export const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/**
 * Other processes consider a holder dead if its Lease has not changed for this long; it is also written into the
 * Lease, for information.
 */
export const LEASE_DURATION_MS = 15_000;

/** Interval between renewals of a held Lease. */
const RENEW_INTERVAL_MS = 5000;
/** A holder that has not renewed for this long no longer holds the Lease: 5 s before another process may take it. */
const RENEW_DEADLINE_MS = 10_000;
/** Delay after a failed attempt; up to a fifth is added at random. */
const RETRY_INTERVAL_MS = 1000;
/** Delay after a conflict on a Lease that a user keeps editing. */
const CONTENTION_RETRY_MS = 100;
/**
 * Unanswered renewals that are remembered, which covers a quarter of an hour. Forgetting one costs an extra relist.
 */
const MAX_PENDING_RENEWALS = 1000;
/** Leaves time for another renewal before the deadline if one hangs. */
const TIMEOUT_MS = 3000;
/** Bounds the release, because it must not delay the exit of the process. */
const RELEASE_TIMEOUT_MS = 1500;

/** Receives what happens to a Lease. */
export interface LeaseEventHandler {
  /**
   * The Lease was acquired: the first time, or again after it was lost. State from before the loss may be outdated. Not
   * called for a renewal that was only late.
   */
  onAcquired?(): void;
  /**
   * The stored Lease is older than one seen before, or an exclusive Lease has a renewal other than the last one sent by
   * this process: etcd was restored from a backup, so other resources are outdated too.
   */
  onRollback?(): void;
  /** An attempt failed with this error, or succeeded (undefined). */
  onResult?(failure: Error | undefined): void;
}

export interface LeaseOptions {
  readonly client: Pick<ResourceClient<LeaseObject>, 'get' | 'create' | 'patch' | 'delete' | 'title'>;
  /** Name of the Lease object. */
  readonly name: string;
  /** Identity of this process, written into the Lease. */
  readonly identity: string;
  /** Annotations of the Lease if this process creates it. Default: none. */
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  /**
   * True for a Lease that only this process may hold: it is taken back immediately after an external edit and deleted
   * on release. False for a shared Lease: it is acquired once it has not changed for 15 s or has been released, and
   * its holder is cleared on release.
   */
  readonly exclusive: boolean;
  /** Asked before each attempt: a process that may not write must not acquire this Lease. Default: it always may. */
  readonly fence?: { canWrite(): boolean };
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * A Lease with the semantics of client-go's leader election: it is renewed every 5 s, the holder gives it up 10 s
 * after it *sent* the last successful renewal, and others may take it after they have seen no change for 15 s of
 * their own monotonic clock. Clocks of two processes are never compared, so they may be hours apart.
 *
 * It differs in one respect: the duration is a constant of this program and never read from the Lease. Otherwise, a
 * manual edit that sets leaseDurationSeconds to a year would stop all replicas for a year.
 */
export class Lease {
  readonly #options: LeaseOptions;
  readonly #handlers: LeaseEventHandler[] = [];
  #object: LeaseObject | undefined;
  /** The newest version that was ever seen, also of a Lease deleted since. */
  #latestResourceVersion = '';
  /** The renewTime of the last answered write and of each write sent after it: one of them is stored. */
  #sentRenewTimes = new Set<string>();
  #everStored = false;
  /** The spec last seen, and when it was first seen. */
  #lastSpec = '';
  #lastChangedMs = Number.NEGATIVE_INFINITY;
  #validUntilMs = Number.NEGATIVE_INFINITY;
  #cancelAttempt: (() => void) | undefined;
  #attemptInProgress: Promise<void> | undefined;
  #retryImmediately = false;
  /** True if admission rewrote the last write. */
  #isRewritten = false;
  #stopped = true;

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  addEventHandler(handler: LeaseEventHandler): void {
    this.#handlers.push(handler);
  }

  /**
   * True while this process holds the Lease by its own clock. Correct at any time, even after the process was
   * suspended.
   */
  get isHeld(): boolean {
    return this.#options.clock.monotonicMs() < this.#validUntilMs;
  }

  /** Starts to acquire the Lease and then renews it until it is released. */
  start(): void {
    this.#stopped = false;
    this.#attempt();
  }

  /** Handles a watch event of this Lease, and of no other; `object` is undefined if it was deleted. */
  onWatchEvent(object: LeaseObject | undefined): void {
    const current = this.#object;
    const previousHolder = current?.spec?.holderIdentity ?? '';
    // The response to a renewal is ahead of the watch.
    const isStale =
      current !== undefined &&
      object?.metadata.uid === current.metadata.uid &&
      compareResourceVersions(object.metadata.resourceVersion, current.metadata.resourceVersion) <= 0;
    if (isStale) return;
    this.#update(object);
    const holder = object?.spec?.holderIdentity ?? '';
    // Released by its holder, or taken from this process: waiting for the next attempt is pointless.
    if (
      !this.#stopped &&
      // Otherwise each own write that is stored without a holder would cause the next one.
      !this.#isRewritten &&
      holder !== this.#options.identity &&
      (holder === '' || previousHolder === this.#options.identity)
    ) {
      this.#retryImmediately = true;
      this.#attempt();
    }
  }

  /**
   * Releases the Lease, so that others need not wait for it to expire. Without a response, it expires. No attempt
   * follows.
   */
  async release(): Promise<void> {
    this.#stopped = true;
    this.#cancelAttempt?.();
    await this.#attemptInProgress;
    const wasHeld = this.isHeld;
    const current = this.#object;
    this.#validUntilMs = Number.NEGATIVE_INFINITY;
    if (!wasHeld || current === undefined) return;
    const { client, name, exclusive, clock } = this.#options;
    const { uid, resourceVersion } = current.metadata;
    try {
      if (exclusive) await client.delete(name, { uid, resourceVersion }, { timeoutMs: RELEASE_TIMEOUT_MS });
      else {
        const spec: LeaseSpec = {
          holderIdentity: '',
          leaseDurationSeconds: 1,
          renewTime: rfc3339Micro(clock.wallMs()),
        };
        await client.patch(name, { metadata: { resourceVersion }, spec }, { timeoutMs: RELEASE_TIMEOUT_MS });
      }
    } catch (error) {
      this.#notifyResult(asError(error));
    }
  }

  #notifyResult(failure: Error | undefined): void {
    for (const handler of this.#handlers) handler.onResult?.(failure);
  }

  #attempt(): void {
    if (this.#stopped || this.#attemptInProgress !== undefined) return;
    this.#cancelAttempt?.();
    this.#cancelAttempt = undefined;
    this.#retryImmediately = false;
    this.#attemptInProgress = this.#runAttempt();
  }

  async #runAttempt(): Promise<void> {
    const { clock, random } = this.#options;
    let delayMs: number;
    try {
      delayMs = (await this.#acquireOrRenew()) ? RENEW_INTERVAL_MS : this.#retryDelayMs();
    } catch (error) {
      this.#notifyResult(asError(error));
      delayMs = RETRY_INTERVAL_MS * (1 + random() / 5);
    }
    this.#attemptInProgress = undefined;
    if (this.#stopped) return;
    this.#cancelAttempt = clock.setTimer(this.#retryImmediately ? CONTENTION_RETRY_MS : delayMs, () =>
      this.#attempt(),
    );
  }

  /**
   * Returns the delay until another holder's Lease may have expired; without another holder, until the next attempt.
   */
  #retryDelayMs(): number {
    const { clock, random, identity } = this.#options;
    if (this.#object?.spec?.holderIdentity === identity) return RETRY_INTERVAL_MS;
    const remainingMs = this.#lastChangedMs + LEASE_DURATION_MS - clock.monotonicMs();
    return remainingMs > 0
      ? Math.min(remainingMs + 1 + random() * 500, LEASE_DURATION_MS)
      : RETRY_INTERVAL_MS;
  }

  /** Returns true if the Lease is held afterwards. */
  async #acquireOrRenew(): Promise<boolean> {
    const { clock, fence, identity, exclusive } = this.#options;
    if (fence?.canWrite() === false) return false;
    if (this.#object === undefined) await this.#read();
    const current = this.#object;
    const holder = current?.spec?.holderIdentity ?? '';
    const isHolder = holder === identity;
    if (
      !isHolder &&
      !exclusive &&
      holder !== '' &&
      clock.monotonicMs() < this.#lastChangedMs + LEASE_DURATION_MS
    )
      return false;
    const sentMs = clock.monotonicMs();
    const latestResourceVersion = this.#latestResourceVersion;
    const stored = await this.#write(current, isHolder);
    if (stored === undefined) {
      // The stored Lease differs from the known one. It is read immediately, and an exclusive one is retried
      // immediately.
      await this.#read();
      this.#retryImmediately = exclusive;
      return false;
    }
    const { lease: storedLease, renewTime } = stored;
    this.#sentRenewTimes = new Set([storedLease.spec?.renewTime ?? '']);
    this.#everStored = true;
    this.#update(storedLease, latestResourceVersion);
    this.#checkStored(storedLease, { holderIdentity: identity, renewTime });
    this.#notifyResult(undefined);
    const wasNotHeld = !this.isHeld;
    // Counted from when the renewal was sent, because it may have been stored then and answered late.
    this.#validUntilMs = sentMs + RENEW_DEADLINE_MS;
    if (wasNotHeld && this.isHeld) for (const handler of this.#handlers) handler.onAcquired?.();
    return this.isHeld;
  }

  /**
   * Throws if admission rewrote what other processes read: to them, the Lease would have another holder, or would never
   * be renewed. Labels do not matter.
   */
  #checkStored({ spec }: LeaseObject, sent: { holderIdentity: string; renewTime: string }): void {
    const difference = findDifference(sent, spec ?? {}, 'spec');
    this.#isRewritten = difference !== undefined;
    if (difference === undefined) return;
    this.#validUntilMs = Number.NEGATIVE_INFINITY;
    const { field, desired, stored } = difference;
    throw new ApiError(
      'rejected',
      `renew Lease ${this.#options.name}: a mutating admission webhook or policy rewrites ${field}: ${desired} was written, ${stored} was stored`,
    );
  }

  /**
   * Writes this process as holder. Returns the stored Lease and the renewTime that was sent; undefined if the Lease
   * differed from `current`.
   */
  async #write(
    current: LeaseObject | undefined,
    isHolder: boolean,
  ): Promise<{ readonly lease: LeaseObject; readonly renewTime: string } | undefined> {
    const { client, name, identity, annotations, clock } = this.#options;
    const now = rfc3339Micro(clock.wallMs());
    this.#sentRenewTimes.add(now);
    if (this.#sentRenewTimes.size > MAX_PENDING_RENEWALS)
      this.#sentRenewTimes = new Set([...this.#sentRenewTimes].slice(1));
    const spec: LeaseSpec = {
      holderIdentity: identity,
      leaseDurationSeconds: LEASE_DURATION_MS / 1000,
      renewTime: now,
      ...(isHolder ? {} : { acquireTime: now, leaseTransitions: (current?.spec?.leaseTransitions ?? 0) + 1 }),
    };
    try {
      if (current === undefined) {
        const created = await client.create(
          {
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: {
              name,
              labels: MANAGED_BY_LABELS,
              ...(annotations === undefined ? {} : { annotations }),
            },
            spec: { ...spec, leaseTransitions: 0 },
          },
          { timeoutMs: TIMEOUT_MS },
        );
        return { lease: created, renewTime: now };
      }
      const { resourceVersion } = current.metadata;
      const patched = await client.patch(
        name,
        { metadata: { resourceVersion }, spec },
        { timeoutMs: TIMEOUT_MS },
      );
      return { lease: patched, renewTime: now };
    } catch (error) {
      if (error instanceof ApiError && ['conflict', 'already_exists', 'not_found'].includes(error.kind)) {
        return undefined;
      }
      throw error;
    }
  }

  async #read(): Promise<void> {
    const { client, name } = this.#options;
    const latestResourceVersion = this.#latestResourceVersion;
    try {
      this.#update(await client.get(name, { timeoutMs: TIMEOUT_MS }), latestResourceVersion);
    } catch (error) {
      if (!(error instanceof ApiError && error.kind === 'not_found')) throw error;
      this.#update(undefined);
    }
  }

  /**
   * Records the Lease. Only a change of the spec counts: an edited label does not prove that the holder is alive.
   *
   * @param latestResourceVersion for a response: the newest version seen when the request was sent; a response never
   *   shows an older one
   */
  #update(object: LeaseObject | undefined, latestResourceVersion?: string): void {
    const previous = this.#object;
    this.#object = object;
    if (object !== undefined) {
      const { resourceVersion, uid } = object.metadata;
      const isOlder =
        latestResourceVersion !== undefined &&
        compareResourceVersions(resourceVersion, latestResourceVersion) < 0;
      if (isOlder || compareResourceVersions(resourceVersion, this.#latestResourceVersion) > 0)
        this.#latestResourceVersion = resourceVersion;
      // A late event of a previous object of this name may contain a renewal that this process sent then.
      const isForeign =
        (latestResourceVersion !== undefined || uid === previous?.metadata.uid) &&
        this.#isForeignRenewal(object);
      if (isOlder || isForeign) for (const handler of this.#handlers) handler.onRollback?.();
    }
    const spec = JSON.stringify(object?.spec ?? null);
    if (spec === this.#lastSpec) return;
    this.#lastSpec = spec;
    this.#lastChangedMs = this.#options.clock.monotonicMs();
    // Taken by a manual edit, or by a process that considered this one dead: then the Lease is lost.
    const holder = object?.spec?.holderIdentity ?? '';
    if (holder !== this.#options.identity && !this.#options.exclusive)
      this.#validUntilMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * Reports whether an exclusive Lease has a renewal other than the last one sent by this process. No other process
   * renews it, so etcd was restored from a backup, even if the version is the newest one seen: versions overlap after
   * several restores.
   */
  #isForeignRenewal({ spec }: LeaseObject): boolean {
    const renewTime = spec?.renewTime;
    // Before the first write, it is a renewal of an earlier process.
    if (!this.#options.exclusive || !this.#everStored || this.#isRewritten) return false;
    if (typeof renewTime !== 'string') return false;
    if (this.#sentRenewTimes.has(renewTime)) return false;
    // Reported once.
    this.#sentRenewTimes.add(renewTime);
    return true;
  }
}
