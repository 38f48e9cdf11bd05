import type { Clock } from './clock.ts';
import { Authorizer } from './controller/authorizer.ts';
import { PolicyCache } from './controller/policy-cache.ts';
import { PolicyStatusWriter } from './controller/policy-status-writer.ts';
import type { PolicyObject } from './core/policy-object.ts';
import { errorMessage } from './error-message.ts';
import { ApiError } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { createPolicyApi, policyResource } from './k8s/resources.ts';
import { Reflector } from './k8s/reflector.ts';
import type { ReflectorLog } from './k8s/reflector-log.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** Where policies are, and who has to hear what they change. */
export interface PolicyControllerOptions {
  readonly namespace: string;
  readonly client: ApiClient;
  /** Whether rows could be listed: then a kind that is not served is one that is not installed. */
  readonly objectsSynced: () => boolean;
  /** What a reporter may report is another than before. */
  readonly onGrantChanged: (key: string) => void;
  /** Another peer is about to speak for a reporter. */
  readonly onPeerChanged: (key: string) => void;
  /** Who may report is another than before: open streams are to be asked for. */
  readonly onPolicyChanged: () => void;
  /** It is known who may report what, for the first time. */
  readonly onPoliciesSynced: () => void;
  readonly isLeader: () => boolean;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** Who may report what, by the ReverseTunnelPolicies of the namespace. */
export interface PolicyController {
  readonly authorizer: Authorizer;
  /** True once it is known who may report what, and what was reported before has been looked at by that. */
  hasSynced(): boolean;
  retryNow(): void;
  /** What the watch showed may not be what is stored: policies are listed again. */
  relist(): void;
  /** Begins to list. Resolves when `signal` is aborted. */
  start(signal: AbortSignal): Promise<void>;
  /** Nothing more is written. */
  stop(): void;
}

/** Builds the parts and hands them to each other. */
export function createPolicyController(options: PolicyControllerOptions): PolicyController {
  const { namespace, client, objectsSynced, isLeader, clock, random, metrics, log } = options;
  const resource = client.resource<PolicyObject>(policyResource(namespace));
  const api = createPolicyApi(resource);
  let reviewed = false;
  /** What has been said: the kind is not served, it may not be listed, a status may not be written. */
  let missing = false;
  let forbidden = false;
  let statusRejected = false;

  const authorizer = new Authorizer({
    onGrantChanged: options.onGrantChanged,
    onPeerChanged: options.onPeerChanged,
    onReevaluated() {
      if (reviewed) return;
      reviewed = true;
      options.onPoliciesSynced();
    },
    clock,
  });
  const policies = new PolicyCache({
    onChanged(set) {
      updateMetrics();
      // Streams first: known for the first time, policies open the writes, and for a stream that they end none is due.
      authorizer.setPolicies(set, options.onPolicyChanged);
    },
    clock,
  });
  const writer = new PolicyStatusWriter({
    policies: () => policies.list(),
    isLeader,
    patchStatus: (name, resourceVersion, status) => api.patchStatus(name, resourceVersion, status),
    onFailed(policy, error) {
      const isFirstRejection = error instanceof ApiError && error.kind === 'rejected' && !statusRejected;
      statusRejected ||= isFirstRejection;
      // It is tried again each second: what passes by itself is not worth a line, and what does not is worth one.
      log[isFirstRejection ? 'warn' : 'debug'](
        { policy, error: errorMessage(error) },
        'failed to update policy status; the policy is enforced regardless',
      );
    },
    clock,
  });
  const reflector = new Reflector<PolicyObject>({
    source: resource,
    handler: policies,
    clock,
    random,
    log: withoutMissingKind(log, () => missing || !policies.hasSynced),
    onStateChange(state, error) {
      if (state === 'synced') missing = false;
      if (state !== 'broken' || !(error instanceof ApiError) || policies.hasSynced) return;
      if (error.kind === 'no_kind_match') onKindMissing();
      else if (error.kind === 'rejected') onListForbidden();
    },
  });

  /** An API server that serves rows, of the same group, and not policies has no policies. */
  function onKindMissing(): void {
    if (!objectsSynced()) return;
    missing = true;
    log.warn(
      { resource: resource.title, hint: 'kubectl apply -f crds/' },
      'ReverseTunnelPolicy CRD is not installed; policy enforcement is disabled',
    );
    policies.onKindMissing();
  }

  /** There may be policies that deny what would be written. */
  function onListForbidden(): void {
    if (forbidden) return;
    forbidden = true;
    log.error(
      {
        resource: resource.title,
        hint: 'grant list and watch on reversetunnelpolicies to the ServiceAccount',
      },
      'cannot list ReverseTunnelPolicies; ReverseTunnel writes are paused until they are listed',
    );
  }

  function updateMetrics(): void {
    const all = [...policies.list()];
    const accepted = all.filter(({ parsed }) => parsed.errors === undefined).length;
    metrics.policies.set({ accepted: 'true' }, accepted);
    metrics.policies.set({ accepted: 'false' }, all.length - accepted);
    log.info({ policies: all.length, accepted }, 'policies loaded');
  }

  return {
    authorizer,
    hasSynced: () => reviewed,
    retryNow: () => reflector.retryNow(),
    relist: () => reflector.relist(),
    async start(signal) {
      writer.start();
      await reflector.run(signal);
    },
    stop() {
      writer.stop();
      policies.stop();
    },
  };
}

/** A kind that has not been installed yet is told once, with what follows from it, and not every 30 s. */
function withoutMissingKind(log: Log, isReportedElsewhere: () => boolean): ReflectorLog {
  return {
    debug: (fields, message) => log.debug(fields, message),
    info: (fields, message) => log.info(fields, message),
    warn(fields, message) {
      const isMissing = (fields as { errorKind?: string }).errorKind === 'no_kind_match';
      if (!isMissing || !isReportedElsewhere()) log.warn(fields, message);
    },
  };
}
