import { SliceParts, type SliceAction } from '../core/slice-plan.ts';
import { sameTunnel } from '../core/tunnel.ts';
import type { QueueItem } from './workqueue.ts';

/** The writes of one slice that admission rewrote, by the part that they wrote. */
interface RewrittenSlice {
  content: SliceAction | undefined;
  status: SliceAction | undefined;
}

/**
 * The last writes of slices that were stored with other values than those sent. The same write would be rewritten again,
 * so it is repeated only after `REWRITE_RETRY_MS`; another one is sent at once.
 */
export class RewrittenSlices {
  readonly #byReporter = new Map<string, Map<string, RewrittenSlice>>();

  /** Records a write that admission rewrote. */
  record({ key, name }: QueueItem, action: SliceAction): void {
    let ofReporter = this.#byReporter.get(key);
    if (ofReporter === undefined) this.#byReporter.set(key, (ofReporter = new Map()));
    let slice = ofReporter.get(name);
    if (slice === undefined) ofReporter.set(name, (slice = { content: undefined, status: undefined }));
    if (partOf(action) === SliceParts.content) slice.content = action;
    else slice.status = action;
  }

  /** Returns the part of a slice that a write would write again as it was rewritten; 0 if it is another write. */
  repeatedPart({ key, name }: QueueItem, action: SliceAction): SliceParts {
    const slice = this.#byReporter.get(key)?.get(name);
    if (slice === undefined) return 0;
    const part = partOf(action);
    const known = part === SliceParts.content ? slice.content : slice.status;
    return known !== undefined && sameWrite(known, action) ? part : 0;
  }

  /** Records that a slice is in the desired state. */
  forget({ key, name }: QueueItem): void {
    const ofReporter = this.#byReporter.get(key);
    if (ofReporter?.delete(name) === true && ofReporter.size === 0) this.#byReporter.delete(key);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#byReporter.delete(key);
  }
}

/** Returns true if both write the same values to the same slice. The order of the entries is not compared. */
export function sameWrite(a: SliceAction, b: SliceAction): boolean {
  if (a.type === 'create' || b.type === 'create')
    return a.type === 'create' && b.type === 'create' && sameTunnels(a.tunnels, b.tunnels);
  if (a.type !== b.type || a.slice.uid !== b.slice.uid) return false;
  if (a.type === 'patch' && b.type === 'patch') return sameTunnels(a.tunnels, b.tunnels);
  if (a.type === 'patchStatus' && b.type === 'patchStatus')
    return a.unknown.size === b.unknown.size && [...a.unknown].every((name) => b.unknown.has(name));
  return true;
}

type Entries = Extract<SliceAction, { type: 'patch' }>['tunnels'];

function sameTunnels(a: Entries, b: Entries): boolean {
  if (a.length !== b.length) return false;
  const byName = new Map(b.map((tunnel) => [tunnel.name, tunnel]));
  return a.every((tunnel) => {
    const other = byName.get(tunnel.name);
    return other !== undefined && sameTunnel(other, tunnel);
  });
}

function partOf({ type }: SliceAction): SliceParts {
  return type === 'patchStatus' || type === 'markClosed' ? SliceParts.status : SliceParts.content;
}
