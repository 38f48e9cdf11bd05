import type { Clock } from './clock.ts';
import type { Caches } from './controllers.ts';
import type { ExpectationObject } from './core/expectation-object.ts';
import type { PolicyObject } from './core/policy-object.ts';
import type { SliceObject } from './core/slice-object.ts';
import type { ReporterObject } from './core/reporter-object.ts';
import type { TunnelObject } from './core/tunnel-object.ts';
import { ApiError } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { leaseResource, type LeaseObject } from './k8s/lease.ts';
import type { FaultLogger } from './k8s/fault-log.ts';
import { Reflector, type ReflectorState } from './k8s/reflector.ts';
import {
  expectationResource,
  policyResource,
  reporterResource,
  sliceResource,
  tunnelResource,
} from './k8s/resources.ts';
import type { Log } from './log.ts';

export interface ReflectorsOptions {
  readonly client: ApiClient;
  readonly namespace: string;
  readonly caches: Caches;
  /** False: slices are not watched. Default true. */
  readonly watchSlices?: boolean | undefined;
  /** False: policies are not watched. Default true. */
  readonly watchPolicies?: boolean | undefined;
  /** False: expectations are not watched. Default true. */
  readonly watchExpectations?: boolean | undefined;
  /** Maximum number of ReverseTunnel objects per page of a list. Default: that of the reflector. */
  readonly tunnelPageLimit?: number | undefined;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
}

/**
 * A slice has 16 kB with usual names, and at most the 1.5 MB that etcd accepts: 50 of those fit into one response.
 */
const SLICE_PAGE_LIMIT = 50;

/** One reflector per watched kind, each of which fills a cache. */
export class Reflectors {
  readonly #tunnels: Reflector<TunnelObject>;
  /** ReverseTunnelReporters; after a lost Lease they must be listed again. */
  readonly reporters: Reflector<ReporterObject>;
  readonly #leases: Reflector<LeaseObject>;
  readonly #slices: Reflector<SliceObject> | undefined;
  readonly #policies: Reflector<PolicyObject> | undefined;
  readonly #expectations: Reflector<ExpectationObject> | undefined;
  readonly #log: Log;

  constructor({
    client,
    namespace,
    caches,
    watchSlices = true,
    watchPolicies = true,
    watchExpectations = true,
    tunnelPageLimit,
    ...common
  }: ReflectorsOptions) {
    this.#log = common.log;
    this.#tunnels = new Reflector<TunnelObject>({
      source: client.resource<TunnelObject>(tunnelResource(namespace)),
      handler: caches.tunnels,
      ...(tunnelPageLimit === undefined ? {} : { pageLimit: tunnelPageLimit }),
      ...common,
    });
    this.reporters = new Reflector<ReporterObject>({
      source: client.resource<ReporterObject>(reporterResource(namespace)),
      handler: caches.reporters,
      ...common,
    });
    this.#leases = new Reflector<LeaseObject>({
      source: client.resource<LeaseObject>(leaseResource(namespace)),
      handler: caches.replicas,
      ...common,
    });
    if (watchSlices) {
      const source = client.resource<SliceObject>(sliceResource(namespace));
      const fallback = new OptionalKindHandler({
        title: source.title,
        cache: caches.slices,
        tunnels: this.#tunnels,
        missing:
          'ReverseTunnelSlice CRD is not installed; tunnels are represented by ReverseTunnel objects only',
        forbidden: 'cannot list ReverseTunnelSlices; ReverseTunnel writes are paused until they are listed',
        log: common.log,
      });
      this.#slices = new Reflector<SliceObject>({
        source,
        handler: caches.slices,
        pageLimit: SLICE_PAGE_LIMIT,
        ...common,
        log: fallback,
        onStateChange: (state, error) => fallback.onStateChange(state, error),
      });
    }
    if (watchPolicies) {
      const source = client.resource<PolicyObject>(policyResource(namespace));
      const fallback = new OptionalKindHandler({
        title: source.title,
        cache: caches.policies,
        tunnels: this.#tunnels,
        missing: 'ReverseTunnelPolicy CRD is not installed; policy enforcement is disabled',
        forbidden: 'cannot list ReverseTunnelPolicies; ReverseTunnel writes are paused until they are listed',
        log: common.log,
      });
      this.#policies = new Reflector<PolicyObject>({
        source,
        handler: caches.policies,
        ...common,
        log: fallback,
        onStateChange: (state, error) => fallback.onStateChange(state, error),
      });
    }
    if (watchExpectations) {
      const source = client.resource<ExpectationObject>(expectationResource(namespace));
      const fallback = new OptionalKindHandler({
        title: source.title,
        cache: caches.expectations,
        tunnels: this.#tunnels,
        missing: 'ReverseTunnelExpectation CRD is not installed; expectations are not evaluated',
        forbidden:
          'cannot list ReverseTunnelExpectations; expectations are not evaluated until they are listed',
        log: common.log,
      });
      this.#expectations = new Reflector<ExpectationObject>({
        source,
        handler: caches.expectations,
        ...common,
        log: fallback,
        onStateChange: (state, error) => fallback.onStateChange(state, error),
      });
    }
  }

  /** Runs until `signal` is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all().map((reflector) => reflector.run(signal)));
  }

  /** Lists ReverseTunnel objects again. */
  relistTunnels(): void {
    this.#tunnels.relist();
  }

  /** Lists ReverseTunnelSlice objects again. */
  relistSlices(): void {
    this.#slices?.relist();
  }

  /**
   * Lists all kinds again, because etcd appears to have been restored from a backup. A watch that started before the
   * restore shows nothing, and continues without an error once the restored store reaches its version.
   */
  relistAll(): void {
    this.#log.warn('etcd appears to have been restored; relisting all resources');
    this.#relistAll();
  }

  /**
   * Lists all kinds again after this process was stopped and continued. Its watches received events of that time, but its
   * Lease was not renewed, so the Lease does not show whether etcd was restored from a backup in between.
   */
  onPaused(pausedMs: number): void {
    const seconds = Math.round(pausedMs / 1000);
    this.#log.warn({ seconds }, 'this process was stopped and continued; relisting all resources');
    this.#relistAll();
  }

  /** Handles a Lease that went back in time. Leases are written every 5 s, so they show a restore first. */
  onRollback(): void {
    this.relistAll();
  }

  /** Retries failed lists and watches soon, and checks whether open watches are alive. */
  retryNow(): void {
    for (const reflector of this.#all()) reflector.retryNow();
  }

  #relistAll(): void {
    for (const reflector of this.#all()) reflector.relist();
  }

  #all(): Pick<Reflector<never>, 'run' | 'relist' | 'retryNow'>[] {
    const optional = [this.#slices, this.#policies, this.#expectations].filter(
      (reflector) => reflector !== undefined,
    );
    return [this.#tunnels, this.reporters, this.#leases, ...optional];
  }
}

interface OptionalKindOptions {
  /** The title of the resource. */
  readonly title: string;
  readonly cache: {
    readonly hasSynced: boolean;
    /** Called while the API server serves ReverseTunnels and not this kind. */
    onKindMissing?(): void;
  };
  readonly tunnels: { readonly hasSynced: boolean };
  /** The log lines about a kind that is not installed, and about one that must not be listed, with the consequence. */
  readonly missing: string;
  readonly forbidden: string;
  readonly log: Log;
}

/**
 * Handles failures of the reflector of a kind that the operator works without, because upgrades with Helm may leave CRDs
 * unchanged. An API server that serves ReverseTunnels and not the kind has no such objects; one that rejects the list may
 * have some.
 */
class OptionalKindHandler implements FaultLogger {
  readonly #options: OptionalKindOptions;
  #isMissing = false;
  #isForbidden = false;

  constructor(options: OptionalKindOptions) {
    this.#options = options;
  }

  onStateChange(state: ReflectorState, error: Error | undefined): void {
    if (state === 'synced') this.#isMissing = false;
    if (state !== 'broken' || !(error instanceof ApiError)) return;
    const { cache } = this.#options;
    if (error.kind === 'no_kind_match') {
      if (cache.hasSynced) cache.onKindMissing?.();
      else this.#handleMissing();
    } else if (error.kind === 'rejected' && !cache.hasSynced) this.#handleForbidden();
  }

  debug(fields: object, message: string): void {
    this.#options.log.debug(fields, message);
  }

  info(fields: object, message: string): void {
    this.#options.log.info(fields, message);
  }

  /** Logs a failure, unless the missing kind was logged already with its consequence. */
  warn(fields: object, message: string): void {
    const { cache, log } = this.#options;
    const isNoKindMatch = (fields as { errorKind?: string }).errorKind === 'no_kind_match';
    if (isNoKindMatch && (this.#isMissing || !cache.hasSynced)) return;
    log.warn(fields, message);
  }

  #handleMissing(): void {
    const { title, cache, tunnels, missing, log } = this.#options;
    if (!tunnels.hasSynced) return;
    if (!this.#isMissing) log.warn({ resource: title, hint: 'kubectl apply -f crds/' }, missing);
    this.#isMissing = true;
    cache.onKindMissing?.();
  }

  #handleForbidden(): void {
    const { title, forbidden, log } = this.#options;
    if (this.#isForbidden) return;
    this.#isForbidden = true;
    const [plural = title] = title.split('.');
    const hint = `grant list and watch on ${plural} to the ServiceAccount`;
    log.error({ resource: title, hint }, forbidden);
  }
}
