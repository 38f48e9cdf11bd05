import type { Authorizer } from './authorizer.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';

export interface ReadinessEventHandler {
  /** Everything that readiness depends on is available. Called once. */
  onReady(): void;
}

export interface ReadinessOptions {
  readonly objects: TunnelCache;
  readonly slices: SliceCache;
  readonly reporters: ReporterCache;
  readonly authorizer: Authorizer;
  /** True once the replica's Lease has been acquired. */
  readonly fence: { readonly everHeld: boolean };
}

/** Whether the replica has read everything that it needs to act. Once it is ready it stays so, even in an API outage. */
export class Readiness {
  readonly #options: ReadinessOptions;
  readonly #handlers: ReadinessEventHandler[] = [];
  #wasReady = false;

  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  addEventHandler(handler: ReadinessEventHandler): void {
    this.#handlers.push(handler);
  }

  /** True once all kinds have been listed and the policies evaluated. Before that, no claim is sent. */
  get hasSynced(): boolean {
    const { objects, slices, reporters, authorizer } = this.#options;
    return objects.hasSynced && slices.hasSynced && reporters.hasSynced && authorizer.hasReviewed;
  }

  /** Returns why the replica is not ready; undefined if it is. */
  notReady(): string | undefined {
    const { objects, slices, reporters, authorizer, fence } = this.#options;
    if (!objects.hasSynced) return 'ReverseTunnels not listed yet';
    if (!slices.hasSynced) return 'ReverseTunnelSlices not listed yet';
    if (!reporters.hasSynced) return 'ReverseTunnelReporters not listed yet';
    if (!authorizer.hasReviewed) return 'ReverseTunnelPolicies not listed yet';
    return fence.everHeld ? undefined : 'replica Lease not acquired yet';
  }

  onListed(): void {
    this.#update();
  }

  onReviewed(): void {
    this.#update();
  }

  onWritable(): void {
    this.#update();
  }

  #update(): void {
    if (this.#wasReady || this.notReady() !== undefined) return;
    this.#wasReady = true;
    for (const handler of this.#handlers) handler.onReady();
  }
}
