import type { Clock } from '../clock.ts';
import { type PolicyStatus, policyStatusPatch } from '../core/policy-object.ts';
import { runPeriodically } from '../run-periodically.ts';
import { errorMessage } from '../error-message.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import { rfc3339 } from '../timestamps.ts';
import type { PolicyCache } from './policy-cache.ts';
import { isApiFailure } from './write-outcome.ts';

/** How often statuses are compared; a failed write is retried then. */
const POLL_INTERVAL_MS = 1000;

/** Writes the status of a policy; `createPolicyApi` in `src/k8s/resources.ts` implements it. */
export interface PolicyStatusApi {
  /** Sends a merge patch with `resourceVersion` as precondition. */
  patchStatus(name: string, resourceVersion: string, status: PolicyStatus): Promise<unknown>;
}

export interface PolicyStatusWriterOptions {
  readonly api: PolicyStatusApi;
  readonly policies: Pick<PolicyCache, 'list'>;
  /** Only the leader writes: two versions of the operator could disagree about what is an error. */
  readonly leader: { readonly isHeld: boolean };
  readonly clock: Clock;
  readonly log: Log;
}

/** Writes the result of parsing each policy to its status. Stateless: it compares the statuses once per second. */
export class PolicyStatusWriter {
  readonly #options: PolicyStatusWriterOptions;
  /** The version on which a status was last written, by name; the watch has not shown the next one yet. */
  readonly #writtenVersions = new Map<string, string>();
  readonly #throttled: LogThrottle;
  #stopPolling: (() => void) | undefined;
  #stopped = false;

  constructor(options: PolicyStatusWriterOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stopPolling = runPeriodically(clock, log, {
      name: 'write the status of policies',
      intervalMs: POLL_INTERVAL_MS,
      run: () => this.#poll(),
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#stopPolling?.();
  }

  /** Writes one status at a time: there are few policies, and tunnels need the connections. */
  async #poll(): Promise<void> {
    const { api, policies, leader, clock } = this.#options;
    const all = [...policies.list()];
    const names = new Set(all.map(({ object }) => object.metadata.name));
    for (const name of this.#writtenVersions.keys()) if (!names.has(name)) this.#writtenVersions.delete(name);
    for (const { object, parsed } of all) {
      if (this.#stopped || !leader.isHeld) break;
      const { name, resourceVersion } = object.metadata;
      if (this.#writtenVersions.get(name) === resourceVersion) continue;
      const status = policyStatusPatch(object, parsed, rfc3339(clock.wallMs()));
      if (status === undefined) continue;
      try {
        await api.patchStatus(name, resourceVersion, status);
        this.#writtenVersions.set(name, resourceVersion);
      } catch (error) {
        this.#logFailure(name, error);
      }
    }
  }

  /** Logs a rejection as a warning. Other failures are retried every second, and usually temporary. */
  #logFailure(policy: string, error: unknown): void {
    const { log } = this.#options;
    const fields = { policy, error: errorMessage(error) };
    const message = 'failed to update policy status; the policy is enforced regardless';
    if (!isApiFailure(error) || error.kind !== 'rejected') log.debug(fields, message);
    else this.#throttled('rejected', (suppressed) => log.warn({ ...fields, ...suppressed }, message));
  }
}
