import type { ApiObject, ResourceClient } from './resource-client.ts';
import type { Clock } from '../clock.ts';
import { MANAGED_BY_LABELS } from '../core/labels.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import { errorMessage } from '../error-message.ts';
import { ApiError } from './api-error.ts';
import { rfc3339Micro } from '../timestamps.ts';

/** A coordination.k8s.io/v1 Lease: the parts that this project reads. */
export interface LeaseObject extends ApiObject {
  readonly spec?: LeaseSpec;
}

/** Who holds it and since when, by the holder's own clock: of others' clocks only a change means anything. */
export interface LeaseSpec {
  /** Absent or empty: nobody. */
  readonly holderIdentity?: string | null;
  readonly leaseDurationSeconds?: number | null;
  readonly acquireTime?: string | null;
  readonly renewTime?: string | null;
  readonly leaseTransitions?: number | null;
}

/** Where this project's Leases live, beside its objects. */
export function leaseResource(namespace: string) {
  return { group: 'coordination.k8s.io', version: 'v1', plural: 'leases', namespace } as const;
}

/** One for all replicas in a namespace. */
export const LEADER_LEASE = 'reverse-tunnel-operator-leader';

/** Others hold a Lease for dead when it has not changed for so long; the time written into it says so too, for people. */
export const LEASE_DURATION_MS = 15_000;

/** How often a Lease that is held is renewed. */
const RENEW_INTERVAL_MS = 5000;
/** A holder that could not renew for so long holds it no more: 5 s before anybody else may think so. */
const RENEW_DEADLINE_MS = 10_000;
/** Between two tries that failed, with up to a fifth more by chance. */
const RETRY_INTERVAL_MS = 1000;
/** Of a Lease that somebody keeps editing. */
const CONTENTION_RETRY_MS = 100;
/** Renewals without an answer that are remembered: a quarter of an hour of them. Of one that is forgotten a list too many comes. */
const MAX_PENDING_RENEWALS = 1000;
/** A renewal that hangs must leave time for another one before the deadline. */
const TIMEOUT_MS = 3000;
/** Giving up must not hold up the end of the process. */
const RELEASE_TIMEOUT_MS = 1500;

export interface LeaseOptions {
  readonly client: Pick<ResourceClient<LeaseObject>, 'get' | 'create' | 'patch' | 'delete' | 'title'>;
  /** Of the object. */
  readonly name: string;
  /** This process; written into the Lease. */
  readonly identity: string;
  /**
   * True for a Lease that no other process has a right to: it is taken back at once from whoever edited it, and
   * deleted when it is given up. Else it is waited for until it has not changed for 15 s or is given up, and is
   * emptied when it is given up.
   */
  readonly exclusive: boolean;
  /** Asked before each try: false where this process may write nothing for another reason. */
  readonly canAcquire: () => boolean;
  /**
   * It is held, from now on: the first time, and after each time that it was not. What the holder believed before may
   * be out of date. Not called when a renewal only was late.
   */
  readonly onAcquired: () => void;
  /**
   * What is stored now is older than what was shown before, or an own Lease has a renewal that was not the last sent from
   * here: etcd was restored from a backup, and shows other things of another time, too.
   */
  readonly onRollback?: () => void;
  /** Told of a failed try, and of the first that works again. */
  readonly onResult: (failure: Error | undefined) => void;
  readonly clock: Clock;
  readonly random: () => number;
}

/**
 * A Lease, with the semantics of client-go's leader election: renewed every 5 s, given up by the holder itself 10 s after
 * the last renewal was *sent*, free for others when they have not seen it change for 15 s of their own monotonic clock.
 * No two clocks are compared, so they may be hours apart.
 *
 * It differs in one thing: for how long a Lease holds is what this program says, never what stands in it. A hand that
 * writes a year into leaseDurationSeconds would else stop all replicas for a year.
 */
export class Lease {
  readonly #options: LeaseOptions;
  #object: LeaseObject | undefined;
  /** The newest version that was ever shown, also of one that was deleted since. */
  #latestResourceVersion = '';
  /** The renewTime of the last write that was answered, and of each that was sent since: one of them is stored. */
  #sentRenewTimes = new Set<string>();
  #everStored = false;
  /** What it says, and when that was first seen. */
  #lastSpec = '';
  #lastChangedMs = Number.NEGATIVE_INFINITY;
  #validUntilMs = Number.NEGATIVE_INFINITY;
  #cancelAttempt: (() => void) | undefined;
  #attemptInProgress: Promise<void> | undefined;
  #retryImmediately = false;
  #stopped = true;

  constructor(options: LeaseOptions) {
    this.#options = options;
  }

  /** True while it is held by this process's own clock. Right at any moment, also after the process was stopped. */
  get isHeld(): boolean {
    return this.#options.clock.monotonicMs() < this.#validUntilMs;
  }

  /** Begins to acquire it, and then renews it for ever. */
  start(): void {
    this.#stopped = false;
    this.#attempt();
  }

  /** The Lease as the watch shows it; undefined when it was deleted. Others' Leases are not to be told. */
  onWatchEvent(object: LeaseObject | undefined): void {
    const current = this.#object;
    const previousHolder = current?.spec?.holderIdentity ?? '';
    // An answer to one's own renewal runs ahead of the watch.
    const isStale =
      current !== undefined &&
      object?.metadata.uid === current.metadata.uid &&
      compareResourceVersions(object.metadata.resourceVersion, current.metadata.resourceVersion) <= 0;
    if (isStale) return;
    this.#update(object);
    const holder = object?.spec?.holderIdentity ?? '';
    // Given up by another, or taken from this one: there is no point in waiting for the next try.
    if (
      !this.#stopped &&
      holder !== this.#options.identity &&
      (holder === '' || previousHolder === this.#options.identity)
    ) {
      this.#retryImmediately = true;
      this.#attempt();
    }
  }

  /**
   * Gives it up, so that others need not wait until it ends; without an answer it ends by itself. Nothing is tried
   * afterwards.
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
      this.#options.onResult(error instanceof Error ? error : new Error(errorMessage(error)));
    }
  }

  #attempt(): void {
    if (this.#stopped || this.#attemptInProgress !== undefined) return;
    this.#cancelAttempt?.();
    this.#cancelAttempt = undefined;
    this.#retryImmediately = false;
    this.#attemptInProgress = this.#runAttempt();
  }

  async #runAttempt(): Promise<void> {
    const { clock, onResult, random } = this.#options;
    let delayMs: number;
    try {
      delayMs = (await this.#acquireOrRenew()) ? RENEW_INTERVAL_MS : this.#retryDelayMs();
    } catch (error) {
      onResult(error instanceof Error ? error : new Error(errorMessage(error)));
      delayMs = RETRY_INTERVAL_MS * (1 + random() / 5);
    }
    this.#attemptInProgress = undefined;
    if (this.#stopped) return;
    this.#cancelAttempt = clock.setTimer(this.#retryImmediately ? CONTENTION_RETRY_MS : delayMs, () =>
      this.#attempt(),
    );
  }

  /** Until the Lease of another may have ended; without another, until the next try. */
  #retryDelayMs(): number {
    const { clock, random, identity } = this.#options;
    if (this.#object?.spec?.holderIdentity === identity) return RETRY_INTERVAL_MS;
    const remainingMs = this.#lastChangedMs + LEASE_DURATION_MS - clock.monotonicMs();
    return remainingMs > 0
      ? Math.min(remainingMs + 1 + random() * 500, LEASE_DURATION_MS)
      : RETRY_INTERVAL_MS;
  }

  /** True when it is held afterwards. */
  async #acquireOrRenew(): Promise<boolean> {
    const { clock, canAcquire, identity, exclusive, onAcquired, onResult } = this.#options;
    if (!canAcquire()) return false;
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
      // It is another than was known. It is read at once, and tried again at once if that is worth it.
      await this.#read();
      this.#retryImmediately = exclusive;
      return false;
    }
    onResult(undefined);
    this.#sentRenewTimes = new Set([stored.spec?.renewTime ?? '']);
    this.#everStored = true;
    this.#update(stored, latestResourceVersion);
    const wasNotHeld = !this.isHeld;
    // By when it was sent: it may have been stored at once, and answered late.
    this.#validUntilMs = sentMs + RENEW_DEADLINE_MS;
    if (wasNotHeld && this.isHeld) onAcquired();
    return this.isHeld;
  }

  /** The Lease as stored, held by this process; undefined when it was another than `known`. */
  async #write(current: LeaseObject | undefined, isHolder: boolean): Promise<LeaseObject | undefined> {
    const { client, name, identity, clock } = this.#options;
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
        return await client.create(
          {
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: { name, labels: MANAGED_BY_LABELS },
            spec: { ...spec, leaseTransitions: 0 },
          },
          { timeoutMs: TIMEOUT_MS },
        );
      }
      const { resourceVersion } = current.metadata;
      return await client.patch(name, { metadata: { resourceVersion }, spec }, { timeoutMs: TIMEOUT_MS });
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
   * Only what stands in the spec counts: a label edited by somebody makes no holder alive.
   *
   * @param latestResourceVersion of an answer: the newest version shown when it was asked for; an answer shows nothing older
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
      // An event of a former object of this name may come late, with an own renewal of then.
      const isForeign =
        (latestResourceVersion !== undefined || uid === previous?.metadata.uid) &&
        this.#isForeignRenewal(object);
      if (isOlder || isForeign) this.#options.onRollback?.();
    }
    const spec = JSON.stringify(object?.spec ?? null);
    if (spec === this.#lastSpec) return;
    this.#lastSpec = spec;
    this.#lastChangedMs = this.#options.clock.monotonicMs();
    // Taken away, by a hand or by somebody who held this process for dead: then it is.
    const holder = object?.spec?.holderIdentity ?? '';
    if (holder !== this.#options.identity && !this.#options.exclusive)
      this.#validUntilMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * True for an own Lease with a renewal that was not the last sent from here. Nobody else renews it, so the store has gone
   * another way since a backup, though its version may be the newest shown: after several restores versions overlap.
   */
  #isForeignRenewal({ spec }: LeaseObject): boolean {
    const renewTime = spec?.renewTime;
    // Before the first write it is a former process's.
    if (!this.#options.exclusive || !this.#everStored || typeof renewTime !== 'string') return false;
    if (this.#sentRenewTimes.has(renewTime)) return false;
    // Once is enough.
    this.#sentRenewTimes.add(renewTime);
    return true;
  }
}
