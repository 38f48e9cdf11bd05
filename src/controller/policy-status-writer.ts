import type { Clock } from '../clock.ts';
import { type PolicyStatus, policyStatusPatch } from '../core/policy-object.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { CachedPolicy } from './policy-cache.ts';
import { rfc3339 } from '../timestamps.ts';

/** How often policies are looked at; a status that was not taken is tried again then. */
const POLL_INTERVAL_MS = 1000;

/** Where policies come from, and how a status of one is written. */
export interface PolicyStatusWriterOptions {
  readonly policies: () => Iterable<CachedPolicy>;
  /** One replica writes: two versions side by side might not agree what is a mistake. */
  readonly isLeader: () => boolean;
  /** Rejects when it was not written, for whatever reason. */
  readonly patchStatus: (name: string, resourceVersion: string, status: PolicyStatus) => Promise<unknown>;
  /** Told of each write that failed. */
  readonly onFailed: (name: string, error: unknown) => void;
  readonly clock: Clock;
}

/**
 * Writes what the operator makes of each policy into its status. Nothing is remembered of writes that failed: what a
 * policy says now is compared with what it is to say, once a second.
 */
export class PolicyStatusWriter {
  readonly #options: PolicyStatusWriterOptions;
  /** The version that a status was last written on, by name: the watch is about to show the next. */
  readonly #writtenVersions = new Map<string, string>();
  #stopPolling: (() => void) | undefined;
  #stopped = false;

  constructor(options: PolicyStatusWriterOptions) {
    this.#options = options;
  }

  start(): void {
    this.#stopPolling = runPeriodically(this.#options.clock, POLL_INTERVAL_MS, () => this.#poll());
  }

  stop(): void {
    this.#stopped = true;
    this.#stopPolling?.();
  }

  /** One at a time: there are few, and rows need the connections. */
  async #poll(): Promise<void> {
    const { policies, isLeader, patchStatus, onFailed, clock } = this.#options;
    const all = [...policies()];
    const names = new Set(all.map(({ object }) => object.metadata.name));
    for (const name of this.#writtenVersions.keys()) if (!names.has(name)) this.#writtenVersions.delete(name);
    for (const { object, parsed } of all) {
      if (this.#stopped || !isLeader()) break;
      const { name, resourceVersion } = object.metadata;
      if (this.#writtenVersions.get(name) === resourceVersion) continue;
      const status = policyStatusPatch(object, parsed, rfc3339(clock.wallMs()));
      if (status === undefined) continue;
      try {
        await patchStatus(name, resourceVersion, status);
        this.#writtenVersions.set(name, resourceVersion);
      } catch (error) {
        onFailed(name, error);
      }
    }
  }
}
