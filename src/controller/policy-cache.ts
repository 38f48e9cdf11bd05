import type { Clock } from '../clock.ts';
import { parsePolicy, type ParsedPolicy } from '../core/policy.ts';
import type { PolicyObject } from '../core/policy-object.ts';
import { ALLOW_ALL_POLICIES, createPolicySet, type PolicySet } from '../core/policy-set.ts';

/** A policy as last seen, and what it says. */
export interface CachedPolicy {
  readonly object: PolicyObject;
  readonly parsed: ParsedPolicy;
}

/** Who is told of the policies, and the clock of the pause in which changes are gathered. */
export interface PolicyCacheOptions {
  /** Policies are others than before, or known for the first time. */
  readonly onChanged: (set: PolicySet) => void;
  readonly clock: Clock;
}

/** Of policies that are applied together each is an event: they are read as one change. */
const DEBOUNCE_MS = 50;

/**
 * The policies as last seen, fed by a list and the watch. What was known stays while the API server is away or refuses to
 * tell. One policy is enough for nothing to be allowed that none allows, also where that one has mistakes.
 */
export class PolicyCache {
  readonly #options: PolicyCacheOptions;
  readonly #byName = new Map<string, CachedPolicy>();
  #listed: Set<string> | undefined;
  #hasSynced = false;
  #cancelNotify: (() => void) | undefined;

  constructor(options: PolicyCacheOptions) {
    this.#options = options;
  }

  /** True once it is known which policies there are. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  list(): Iterable<CachedPolicy> {
    return this.#byName.values();
  }

  /** The API server does not serve the kind, so there can be none. What was known before counts for more. */
  onKindMissing(): void {
    if (!this.#hasSynced) this.#notify();
  }

  replaceBegin(): void {
    this.#listed = new Set();
  }

  replaceItem(object: PolicyObject): void {
    this.#listed?.add(object.metadata.name);
    this.#upsert(object);
  }

  replaceEnd(): void {
    for (const name of this.#byName.keys()) if (this.#listed?.has(name) === false) this.#byName.delete(name);
    this.#listed = undefined;
    // At once: the first list is what everything waits for.
    this.#notify();
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: PolicyObject): void {
    if (type === 'DELETED') this.#byName.delete(object.metadata.name);
    else if (!this.#upsert(object)) return;
    this.#cancelNotify ??= this.#options.clock.setTimer(DEBOUNCE_MS, () => this.#notify());
  }

  /** Leaves no timer. */
  stop(): void {
    this.#cancelNotify?.();
  }

  /** True when it says something else than before: a status of its own is nothing new. */
  #upsert({ metadata, spec, status }: PolicyObject): boolean {
    const { name, uid, resourceVersion, generation } = metadata;
    const before = this.#byName.get(name);
    // By what it says: after a restore of etcd one generation may stand for two texts.
    const isSame = before !== undefined && JSON.stringify(before.object.spec) === JSON.stringify(spec);
    this.#byName.set(name, {
      object: {
        metadata: { name, uid, resourceVersion, generation },
        spec,
        ...(status === undefined ? {} : { status }),
      },
      parsed: isSame ? before.parsed : parsePolicy(spec),
    });
    return !isSame;
  }

  #notify(): void {
    this.#cancelNotify?.();
    this.#cancelNotify = undefined;
    this.#hasSynced = true;
    // In one order, so that the same policies make the same set.
    const policies = [...this.#byName].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const rules = policies.flatMap(([, { parsed }]) => parsed.rules ?? []);
    this.#options.onChanged(policies.length === 0 ? ALLOW_ALL_POLICIES : createPolicySet(rules));
  }
}
