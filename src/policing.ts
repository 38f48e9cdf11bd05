import type { Clock } from './clock.ts';
import { Grants } from './controller/grants.ts';
import { Policies } from './controller/policies.ts';
import { PolicyStatusWriter } from './controller/policy-status-writer.ts';
import type { PolicyObject } from './core/policy-object.ts';
import { ApiError, explanationOf } from './k8s/api-error.ts';
import type { ApiClient } from './k8s/client.ts';
import { createPolicyApi, policyResource } from './k8s/policy-api.ts';
import { Reflector } from './k8s/reflector.ts';
import type { ReflectorLog } from './k8s/reflector-log.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** Where policies are, and who has to hear what they change. */
export interface PolicingParts {
  readonly namespace: string;
  readonly client: ApiClient;
  /** Whether rows could be listed: then a kind that is not served is one that is not installed. */
  readonly rowsListed: () => boolean;
  /** What a reporter may report is another than before. */
  readonly onGrantChanged: (key: string) => void;
  /** Another peer is about to speak for a reporter. */
  readonly onOtherPeer: (key: string) => void;
  /** Who may report is another than before: open streams are to be asked for. */
  readonly onPolicyChanged: () => void;
  /** It is known who may report what, for the first time. */
  readonly onKnown: () => void;
  readonly isLeader: () => boolean;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** Who may report what, by the ReverseTunnelPolicies of the namespace. */
export interface Policing {
  readonly grants: Grants;
  /** True once it is known who may report what, and what was reported before has been looked at by that. */
  isKnown(): boolean;
  hasten(): void;
  /** What the watch showed may not be what is stored: policies are listed again. */
  relist(): void;
  /** Begins to list. Resolves when `signal` is aborted. */
  start(signal: AbortSignal): Promise<void>;
  /** Nothing more is written. */
  stop(): void;
}

/** Builds the parts and hands them to each other. */
export function createPolicing(parts: PolicingParts): Policing {
  const { namespace, client, rowsListed, isLeader, clock, random, metrics, log } = parts;
  const resource = client.resource<PolicyObject>(policyResource(namespace));
  const api = createPolicyApi(resource);
  let reviewed = false;
  /** What has been said: the kind is not served, it may not be listed, a status may not be written. */
  let missing = false;
  let forbidden = false;
  let statusRefused = false;

  const grants = new Grants({
    onChanged: parts.onGrantChanged,
    onOtherPeer: parts.onOtherPeer,
    onReviewed() {
      if (reviewed) return;
      reviewed = true;
      parts.onKnown();
    },
    clock,
  });
  const policies = new Policies({
    onChanged(set) {
      count();
      // Streams first: known for the first time, policies open the writes, and for a stream that they end none is due.
      grants.changed(set, parts.onPolicyChanged);
    },
    clock,
  });
  const writer = new PolicyStatusWriter({
    policies: () => policies.all(),
    isLeader,
    patchStatus: (name, resourceVersion, status) => api.patchStatus(name, resourceVersion, status),
    onFailed(policy, error) {
      const isRefused = error instanceof ApiError && error.consequence === 'rejected' && !statusRefused;
      statusRefused ||= isRefused;
      // It is tried again each second: what passes by itself is not worth a line, and what does not is worth one.
      log[isRefused ? 'warn' : 'debug'](
        { policy, error: explanationOf(error) },
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
    log: withoutMissingKind(log, () => missing || !policies.isKnown),
    onState(state, error) {
      if (state === 'synced') missing = false;
      if (state !== 'broken' || !(error instanceof ApiError) || policies.isKnown) return;
      if (error.consequence === 'no_kind_match') kindMissing();
      else if (error.consequence === 'rejected') listRefused();
    },
  });

  /** An API server that serves rows, of the same group, and not policies has no policies. */
  function kindMissing(): void {
    if (!rowsListed()) return;
    missing = true;
    log.warn(
      { resource: resource.title, hint: 'kubectl apply -f crds/' },
      'ReverseTunnelPolicy CRD is not installed; policy enforcement is disabled',
    );
    policies.kindMissing();
  }

  /** There may be policies that deny what would be written. */
  function listRefused(): void {
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

  function count(): void {
    const all = [...policies.all()];
    const accepted = all.filter(({ parsed }) => parsed.mistakes === undefined).length;
    metrics.policies.set({ accepted: 'true' }, accepted);
    metrics.policies.set({ accepted: 'false' }, all.length - accepted);
    log.info({ policies: all.length, accepted }, 'policies loaded');
  }

  return {
    grants,
    isKnown: () => reviewed,
    hasten: () => reflector.hasten(),
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
function withoutMissingKind(log: Log, isToldOtherwise: () => boolean): ReflectorLog {
  return {
    info: (fields, message) => log.info(fields, message),
    warn(fields, message) {
      const isMissing = (fields as { consequence?: string }).consequence === 'no_kind_match';
      if (!isMissing || !isToldOtherwise()) log.warn(fields, message);
    },
  };
}
