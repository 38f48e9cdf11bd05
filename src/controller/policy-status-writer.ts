import type { Clock } from '../clock.ts';
import type { PolicyStatus } from '../core/policy-object.ts';
import { policyStatusPatch } from '../core/policy-status.ts';
import { every } from '../every.ts';
import type { KnownPolicy } from './policies.ts';
import { secondsText } from './seconds-text.ts';

/** How often policies are looked at; a status that was not taken is tried again then. */
const LOOK_EVERY_MS = 1000;

/** Where policies come from, and how a status of one is written. */
export interface PolicyStatusWriterParts {
  readonly policies: () => Iterable<KnownPolicy>;
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
  readonly #parts: PolicyStatusWriterParts;
  /** The version that a status was last written on, by name: the watch is about to show the next. */
  readonly #writtenOn = new Map<string, string>();
  #end: (() => void) | undefined;
  #stopped = false;

  constructor(parts: PolicyStatusWriterParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#end = every(this.#parts.clock, LOOK_EVERY_MS, () => this.#look());
  }

  stop(): void {
    this.#stopped = true;
    this.#end?.();
  }

  /** One at a time: there are few, and rows need the connections. */
  async #look(): Promise<void> {
    const { policies, isLeader, patchStatus, onFailed, clock } = this.#parts;
    const all = [...policies()];
    const names = new Set(all.map(({ object }) => object.metadata.name));
    for (const name of this.#writtenOn.keys()) if (!names.has(name)) this.#writtenOn.delete(name);
    for (const { object, parsed } of all) {
      if (this.#stopped || !isLeader()) break;
      const { name, resourceVersion } = object.metadata;
      if (this.#writtenOn.get(name) === resourceVersion) continue;
      const status = policyStatusPatch(object, parsed, secondsText(clock.wallMs()));
      if (status === undefined) continue;
      try {
        await patchStatus(name, resourceVersion, status);
        this.#writtenOn.set(name, resourceVersion);
      } catch (error) {
        onFailed(name, error);
      }
    }
  }
}
