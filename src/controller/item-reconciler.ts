import type { SliceReconciler } from './slice-reconciler.ts';
import { sliceNameOf } from './slice-item.ts';
import type { TunnelReconciler } from './tunnel-reconciler.ts';
import type { Outcome, Reconciler } from './workers.ts';
import type { QueueItem } from './workqueue.ts';

/** Passes the items of the queue that tunnels and slices share to the reconciler of their kind. */
export class ItemReconciler implements Reconciler {
  readonly #tunnels: TunnelReconciler;
  readonly #slices: SliceReconciler;

  constructor(tunnels: TunnelReconciler, slices: SliceReconciler) {
    this.#tunnels = tunnels;
    this.#slices = slices;
  }

  describe(item: QueueItem): object {
    return this.#for(item).describe(item);
  }

  reconcile(item: QueueItem): Promise<Outcome> {
    return this.#for(item).reconcile(item);
  }

  onRejected(item: QueueItem, answer: string): void {
    this.#for(item).onRejected(item, answer);
  }

  #for({ name }: QueueItem): TunnelReconciler | SliceReconciler {
    return sliceNameOf(name) === undefined ? this.#tunnels : this.#slices;
  }
}
