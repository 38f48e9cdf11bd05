import type { Clock } from '../clock.ts';
import { parsePolicy, type ParsedPolicy } from '../core/policy.ts';
import type { PolicyObject } from '../core/policy-object.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { policySetInForce, REQUIRED_POLICY_MISSING, type PolicySet } from '../core/policy-set.ts';

/** A policy as last seen, and its parsed spec. */
export interface CachedPolicy {
  readonly object: PolicyObject;
  readonly parsed: ParsedPolicy;
}

export interface PolicyCacheEventHandler {
  /** The policies changed, or are known for the first time. */
  onPoliciesChanged(set: PolicySet): void;
}

export interface PolicyCacheOptions {
  /** `--require-policy`: without policies, every client is rejected. Default: false, every client is accepted. */
  readonly requirePolicy?: boolean | undefined;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** Policies that are applied together arrive as one event each; changes within this time are handled as one. */
const DEBOUNCE_MS = 50;

/**
 * The policies as last seen, filled by lists and the watch. While the API server is unavailable, or rejects the requests,
 * the known policies stay in force. With at least one policy, even an invalid one, whatever no policy allows is denied.
 */
export class PolicyCache {
  readonly #options: PolicyCacheOptions;
  readonly #handlers: PolicyCacheEventHandler[] = [];
  readonly #byName = new Map<string, CachedPolicy>();
  #listed: Set<string> | undefined;
  #hasSynced = false;
  #cancelNotify: (() => void) | undefined;

  constructor(options: PolicyCacheOptions) {
    this.#options = options;
  }

  addEventHandler(handler: PolicyCacheEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once the policies are known. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  list(): Iterable<CachedPolicy> {
    return this.#byName.values();
  }

  /** Handles an API server that does not serve the kind: there are no policies, unless some are known already. */
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

  /** Ends the timer. */
  stop(): void {
    this.#cancelNotify?.();
  }

  /** Stores a policy. Returns true if its spec changed; a change of its status has no effect. */
  #upsert({ metadata, spec, status }: PolicyObject): boolean {
    const { name, uid, resourceVersion, generation } = metadata;
    const before = this.#byName.get(name);
    // Generations are not compared: after a restore of etcd, one generation may have two specs.
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
    // Sorted, so that the same policies always create the same set.
    const policies = [...this.#byName].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const rules = policies.flatMap(([, { parsed }]) => parsed.rules ?? []);
    const set = policySetInForce(policies.length, rules, this.#options.requirePolicy === true);
    this.#report(set === REQUIRED_POLICY_MISSING);
    for (const handler of this.#handlers) handler.onPoliciesChanged(set);
  }

  #report(isRequiredMissing: boolean): void {
    const { metrics, log } = this.#options;
    const all = [...this.#byName.values()];
    const accepted = all.filter(({ parsed }) => parsed.errors === undefined).length;
    metrics.policies.set({ accepted: 'true' }, accepted);
    metrics.policies.set({ accepted: 'false' }, all.length - accepted);
    metrics.requiredPolicyMissing.set(isRequiredMissing ? 1 : 0);
    log.info({ policies: all.length, accepted }, 'policies loaded');
    if (!isRequiredMissing) return;
    log.warn(
      { hint: 'create a ReverseTunnelPolicy in this namespace, or remove --require-policy' },
      'no ReverseTunnelPolicy exists; every client is rejected',
    );
  }
}
