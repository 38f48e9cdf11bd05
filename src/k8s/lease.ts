import type { Clock } from '../clock.ts';
import { MANAGED_BY } from '../core/managed-by.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import { ApiError, explanationOf } from './api-error.ts';
import { LEASE_DURATION_MS, type LeaseObject, type LeaseSpec } from './lease-object.ts';
import { microTime } from './micro-time.ts';
import type { ResourceClient } from './resource-client.ts';

/** How often a Lease that is held is renewed. */
const RENEW_EVERY_MS = 5000;
/** A holder that could not renew for so long holds it no more: 5 s before anybody else may think so. */
const RENEW_DEADLINE_MS = 10_000;
/** Between two tries that failed, with up to a fifth more by chance. */
const RETRY_EVERY_MS = 1000;
/** Of a Lease that somebody keeps editing. */
const CONTESTED_EVERY_MS = 100;
/** Renewals without an answer that are remembered: a quarter of an hour of them. Of one that is forgotten a list too many comes. */
const MOST_UNANSWERED = 1000;
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
  readonly own: boolean;
  /** Asked before each try: false where this process may write nothing for another reason. */
  readonly mayTry: () => boolean;
  /**
   * It is held, from now on: the first time, and after each time that it was not. What the holder believed before may
   * be out of date. Not called when a renewal only was late.
   */
  readonly onHeld: () => void;
  /**
   * What is stored now is older than what was shown before, or an own Lease has a renewal that was not the last sent from
   * here: etcd was restored from a backup, and shows other things of another time, too.
   */
  readonly onSetBack?: () => void;
  /** Told of a failed try, and of the first that works again. */
  readonly onAnswer: (failure: Error | undefined) => void;
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
  #known: LeaseObject | undefined;
  /** The newest version that was ever shown, also of one that was deleted since. */
  #shown = '';
  /** The renewTime of the last write that was answered, and of each that was sent since: one of them is stored. */
  #sent = new Set<string>();
  #everStored = false;
  /** What it says, and when that was first seen. */
  #said = '';
  #changedMs = Number.NEGATIVE_INFINITY;
  #validUntilMs = Number.NEGATIVE_INFINITY;
  #cancelTry: (() => void) | undefined;
  #trying: Promise<void> | undefined;
  #again = false;
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
    this.#try();
  }

  /** The Lease as the watch shows it; undefined when it was deleted. Others' Leases are not to be told. */
  observed(object: LeaseObject | undefined): void {
    const known = this.#known;
    const before = known?.spec?.holderIdentity ?? '';
    // An answer to one's own renewal runs ahead of the watch.
    const late =
      known !== undefined &&
      object?.metadata.uid === known.metadata.uid &&
      compareResourceVersions(object.metadata.resourceVersion, known.metadata.resourceVersion) <= 0;
    if (late) return;
    this.#learn(object);
    const holder = object?.spec?.holderIdentity ?? '';
    // Given up by another, or taken from this one: there is no point in waiting for the next try.
    if (
      !this.#stopped &&
      holder !== this.#options.identity &&
      (holder === '' || before === this.#options.identity)
    ) {
      this.#again = true;
      this.#try();
    }
  }

  /**
   * Gives it up, so that others need not wait until it ends; without an answer it ends by itself. Nothing is tried
   * afterwards.
   */
  async release(): Promise<void> {
    this.#stopped = true;
    this.#cancelTry?.();
    await this.#trying;
    const held = this.isHeld;
    const known = this.#known;
    this.#validUntilMs = Number.NEGATIVE_INFINITY;
    if (!held || known === undefined) return;
    const { client, name, own, clock } = this.#options;
    const { uid, resourceVersion } = known.metadata;
    try {
      if (own) await client.delete(name, { uid, resourceVersion }, { timeoutMs: RELEASE_TIMEOUT_MS });
      else {
        const spec: LeaseSpec = {
          holderIdentity: '',
          leaseDurationSeconds: 1,
          renewTime: microTime(clock.wallMs()),
        };
        await client.patch(name, { metadata: { resourceVersion }, spec }, { timeoutMs: RELEASE_TIMEOUT_MS });
      }
    } catch (error) {
      this.#options.onAnswer(error instanceof Error ? error : new Error(explanationOf(error)));
    }
  }

  #try(): void {
    if (this.#stopped || this.#trying !== undefined) return;
    this.#cancelTry?.();
    this.#cancelTry = undefined;
    this.#again = false;
    this.#trying = this.#tryOnce();
  }

  async #tryOnce(): Promise<void> {
    const { clock, onAnswer, random } = this.#options;
    let waitMs: number;
    try {
      waitMs = (await this.#acquireOrRenew()) ? RENEW_EVERY_MS : this.#retryMs();
    } catch (error) {
      onAnswer(error instanceof Error ? error : new Error(explanationOf(error)));
      waitMs = RETRY_EVERY_MS * (1 + random() / 5);
    }
    this.#trying = undefined;
    if (this.#stopped) return;
    this.#cancelTry = clock.setTimer(this.#again ? CONTESTED_EVERY_MS : waitMs, () => this.#try());
  }

  /** Until the Lease of another may have ended; without another, until the next try. */
  #retryMs(): number {
    const { clock, random, identity } = this.#options;
    if (this.#known?.spec?.holderIdentity === identity) return RETRY_EVERY_MS;
    const leftMs = this.#changedMs + LEASE_DURATION_MS - clock.monotonicMs();
    return leftMs > 0 ? Math.min(leftMs + 1 + random() * 500, LEASE_DURATION_MS) : RETRY_EVERY_MS;
  }

  /** True when it is held afterwards. */
  async #acquireOrRenew(): Promise<boolean> {
    const { clock, mayTry, identity, own, onHeld, onAnswer } = this.#options;
    if (!mayTry()) return false;
    if (this.#known === undefined) await this.#read();
    const known = this.#known;
    const holder = known?.spec?.holderIdentity ?? '';
    const mine = holder === identity;
    if (!mine && !own && holder !== '' && clock.monotonicMs() < this.#changedMs + LEASE_DURATION_MS)
      return false;
    const sentMs = clock.monotonicMs();
    const shown = this.#shown;
    const stored = await this.#write(known, mine);
    if (stored === undefined) {
      // It is another than was known. It is read at once, and tried again at once if that is worth it.
      await this.#read();
      this.#again = own;
      return false;
    }
    onAnswer(undefined);
    this.#sent = new Set([stored.spec?.renewTime ?? '']);
    this.#everStored = true;
    this.#learn(stored, shown);
    const lapsed = !this.isHeld;
    // By when it was sent: it may have been stored at once, and answered late.
    this.#validUntilMs = sentMs + RENEW_DEADLINE_MS;
    if (lapsed && this.isHeld) onHeld();
    return this.isHeld;
  }

  /** The Lease as stored, held by this process; undefined when it was another than `known`. */
  async #write(known: LeaseObject | undefined, mine: boolean): Promise<LeaseObject | undefined> {
    const { client, name, identity, clock } = this.#options;
    const now = microTime(clock.wallMs());
    this.#sent.add(now);
    if (this.#sent.size > MOST_UNANSWERED) this.#sent = new Set([...this.#sent].slice(1));
    const spec: LeaseSpec = {
      holderIdentity: identity,
      leaseDurationSeconds: LEASE_DURATION_MS / 1000,
      renewTime: now,
      ...(mine ? {} : { acquireTime: now, leaseTransitions: (known?.spec?.leaseTransitions ?? 0) + 1 }),
    };
    try {
      if (known === undefined) {
        return await client.create(
          {
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: { name, labels: MANAGED_BY },
            spec: { ...spec, leaseTransitions: 0 },
          },
          { timeoutMs: TIMEOUT_MS },
        );
      }
      const { resourceVersion } = known.metadata;
      return await client.patch(name, { metadata: { resourceVersion }, spec }, { timeoutMs: TIMEOUT_MS });
    } catch (error) {
      if (
        error instanceof ApiError &&
        ['conflict', 'already_exists', 'not_found'].includes(error.consequence)
      ) {
        return undefined;
      }
      throw error;
    }
  }

  async #read(): Promise<void> {
    const { client, name } = this.#options;
    const shown = this.#shown;
    try {
      this.#learn(await client.get(name, { timeoutMs: TIMEOUT_MS }), shown);
    } catch (error) {
      if (!(error instanceof ApiError && error.consequence === 'not_found')) throw error;
      this.#learn(undefined);
    }
  }

  /**
   * Only what stands in the spec counts: a label edited by somebody makes no holder alive.
   *
   * @param shown of an answer: the newest version shown when it was asked for; an answer shows nothing older
   */
  #learn(object: LeaseObject | undefined, shown?: string): void {
    const before = this.#known;
    this.#known = object;
    if (object !== undefined) {
      const { resourceVersion, uid } = object.metadata;
      const isOlder = shown !== undefined && compareResourceVersions(resourceVersion, shown) < 0;
      if (isOlder || compareResourceVersions(resourceVersion, this.#shown) > 0) this.#shown = resourceVersion;
      // An event of a former object of this name may come late, with an own renewal of then.
      const isOther = (shown !== undefined || uid === before?.metadata.uid) && this.#isStranger(object);
      if (isOlder || isOther) this.#options.onSetBack?.();
    }
    const said = JSON.stringify(object?.spec ?? null);
    if (said === this.#said) return;
    this.#said = said;
    this.#changedMs = this.#options.clock.monotonicMs();
    // Taken away, by a hand or by somebody who held this process for dead: then it is.
    const holder = object?.spec?.holderIdentity ?? '';
    if (holder !== this.#options.identity && !this.#options.own)
      this.#validUntilMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * True for an own Lease with a renewal that was not the last sent from here. Nobody else renews it, so the store has gone
   * another way since a backup, though its version may be the newest shown: after several restores versions overlap.
   */
  #isStranger({ spec }: LeaseObject): boolean {
    const renewTime = spec?.renewTime;
    // Before the first write it is a former process's.
    if (!this.#options.own || !this.#everStored || typeof renewTime !== 'string') return false;
    if (this.#sent.has(renewTime)) return false;
    // Once is enough.
    this.#sent.add(renewTime);
    return true;
  }
}
