import type { Clock } from './clock.ts';
import type { PolicyCache } from './controller/policy-cache.ts';
import type { Caches } from './controllers.ts';
import type { PolicyObject } from './core/policy-object.ts';
import type { ReporterObject } from './core/reporter-object.ts';
import type { TunnelObject } from './core/tunnel-object.ts';
import { ApiError } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { leaseResource, type LeaseObject } from './k8s/lease.ts';
import type { FaultLogger } from './k8s/fault-log.ts';
import { Reflector, type ReflectorState } from './k8s/reflector.ts';
import { policyResource, reporterResource, tunnelResource } from './k8s/resources.ts';
import type { Log } from './log.ts';

export interface ReflectorsOptions {
  readonly client: ApiClient;
  readonly namespace: string;
  readonly caches: Caches;
  /** False: policies are not watched. Default true. */
  readonly watchPolicies?: boolean | undefined;
  /** Maximum number of ReverseTunnel objects per page of a list. Default: that of the reflector. */
  readonly tunnelPageLimit?: number | undefined;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
}

/** One reflector per watched kind, each of which fills a cache. */
export class Reflectors {
  readonly #tunnels: Reflector<TunnelObject>;
  /** ReverseTunnelReporters; after a lost Lease they must be listed again. */
  readonly reporters: Reflector<ReporterObject>;
  readonly #leases: Reflector<LeaseObject>;
  readonly #policies: Reflector<PolicyObject> | undefined;
  readonly #log: Log;

  constructor({
    client,
    namespace,
    caches,
    watchPolicies = true,
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
    if (watchPolicies) {
      const source = client.resource<PolicyObject>(policyResource(namespace));
      const fallback = new MissingPolicyHandler(source.title, caches.policies, this.#tunnels, common.log);
      this.#policies = new Reflector<PolicyObject>({
        source,
        handler: caches.policies,
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

  /**
   * Lists all kinds again, because etcd appears to have been restored from a backup. A watch that started before the
   * restore shows nothing, and continues without an error once the restored store reaches its version.
   */
  relistAll(): void {
    this.#log.warn('etcd appears to have been restored; relisting all resources');
    for (const reflector of this.#all()) reflector.relist();
  }

  /** Handles a Lease that went back in time. Leases are written every 5 s, so they show a restore first. */
  onRollback(): void {
    this.relistAll();
  }

  /** Retries failed lists and watches soon, and checks whether open watches are alive. */
  retryNow(): void {
    for (const reflector of this.#all()) reflector.retryNow();
  }

  #all(): Pick<Reflector<never>, 'run' | 'relist' | 'retryNow'>[] {
    const policies = this.#policies === undefined ? [] : [this.#policies];
    return [this.#tunnels, this.reporters, this.#leases, ...policies];
  }
}

/**
 * Handles failures of the policies' reflector. An API server that serves ReverseTunnels and not ReverseTunnelPolicies
 * has no policies; one that rejects the list may have policies that deny what would be written.
 */
class MissingPolicyHandler implements FaultLogger {
  readonly #title: string;
  readonly #policies: PolicyCache;
  readonly #tunnels: { readonly hasSynced: boolean };
  readonly #log: Log;
  #isMissing = false;
  #isForbidden = false;

  constructor(title: string, policies: PolicyCache, tunnels: { readonly hasSynced: boolean }, log: Log) {
    this.#title = title;
    this.#policies = policies;
    this.#tunnels = tunnels;
    this.#log = log;
  }

  onStateChange(state: ReflectorState, error: Error | undefined): void {
    if (state === 'synced') this.#isMissing = false;
    if (state !== 'broken' || !(error instanceof ApiError) || this.#policies.hasSynced) return;
    if (error.kind === 'no_kind_match') this.#handleMissing();
    else if (error.kind === 'rejected') this.#handleForbidden();
  }

  debug(fields: object, message: string): void {
    this.#log.debug(fields, message);
  }

  info(fields: object, message: string): void {
    this.#log.info(fields, message);
  }

  /** Logs a failure, unless the missing kind was logged already with its consequence. */
  warn(fields: object, message: string): void {
    const isNoKindMatch = (fields as { errorKind?: string }).errorKind === 'no_kind_match';
    if (isNoKindMatch && (this.#isMissing || !this.#policies.hasSynced)) return;
    this.#log.warn(fields, message);
  }

  #handleMissing(): void {
    if (!this.#tunnels.hasSynced) return;
    this.#isMissing = true;
    this.#log.warn(
      { resource: this.#title, hint: 'kubectl apply -f crds/' },
      'ReverseTunnelPolicy CRD is not installed; policy enforcement is disabled',
    );
    this.#policies.onKindMissing();
  }

  #handleForbidden(): void {
    if (this.#isForbidden) return;
    this.#isForbidden = true;
    this.#log.error(
      {
        resource: this.#title,
        hint: 'grant list and watch on reversetunnelpolicies to the ServiceAccount',
      },
      'cannot list ReverseTunnelPolicies; ReverseTunnel writes are paused until they are listed',
    );
  }
}
