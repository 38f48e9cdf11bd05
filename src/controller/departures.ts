/**
 * The tunnels of which one form is being removed because the other one shows them. While the write is in flight, the
 * form that it removes is still in the cache, but nothing may rely on it: if the representation changed at that moment,
 * the other form could be removed, too.
 */
export class Departures {
  readonly #names = new Map<string, Set<string>>();
  /** Removals without a response, by reporter key, then by queue item. */
  readonly #lost = new Map<string, Map<string, LostRemoval>>();

  /**
   * Records a write that is about to remove one form of tunnels.
   *
   * @param scope the reporter key for objects, `departureScope` for the entries of a slice
   */
  begin(scope: string, tunnelNames: Iterable<string>): void {
    for (const name of tunnelNames) {
      const names = this.#names.get(scope);
      if (names === undefined) this.#names.set(scope, new Set([name]));
      else names.add(name);
    }
  }

  /** Records that the write was answered, or has failed. */
  end(scope: string, tunnelNames: Iterable<string>): void {
    const names = this.#names.get(scope);
    if (names === undefined) return;
    for (const name of tunnelNames) names.delete(name);
    if (names.size === 0) this.#names.delete(scope);
  }

  /** Records that the response to a removal was lost: its names stay until it cannot take effect any longer. */
  lost({ key, name }: DepartureItem, removal: LostRemoval): void {
    const ofReporter = this.#lost.get(key) ?? new Map<string, LostRemoval>();
    const names = new Set([...(ofReporter.get(name)?.names ?? []), ...removal.names]);
    this.#lost.set(key, ofReporter.set(name, { ...removal, names }));
  }

  /**
   * Returns how long a removal without a response may still take effect, in ms; 0 if there is none.
   *
   * @param version the resourceVersion of the object; undefined if it does not exist. A removal has the former one as a
   *   precondition
   */
  lostDelayMs({ key, name }: DepartureItem, version: string | undefined, nowMs: number): number {
    const ofReporter = this.#lost.get(key);
    const removal = ofReporter?.get(name);
    if (ofReporter === undefined || removal === undefined) return 0;
    const isOver = version !== removal.version || nowMs >= removal.endsMs;
    if (!isOver && Array.from(removal.names).some((of) => this.has(removal.scope, of)))
      return removal.endsMs - nowMs;
    this.end(removal.scope, removal.names);
    ofReporter.delete(name);
    if (ofReporter.size === 0) this.#lost.delete(key);
    return 0;
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    for (const { scope, names } of this.#lost.get(key)?.values() ?? []) this.end(scope, names);
    this.#lost.delete(key);
  }

  /** Returns true while the form of a tunnel is being removed. */
  has(scope: string, tunnelName: string): boolean {
    return this.#names.get(scope)?.has(tunnelName) === true;
  }
}

/** A queue item whose write removes one form of tunnels. */
interface DepartureItem {
  readonly key: string;
  readonly name: string;
}

/** A removal whose response was lost. */
export interface LostRemoval {
  readonly scope: string;
  readonly names: Iterable<string>;
  /** The resourceVersion that is a precondition of the removal. */
  readonly version: string;
  /** When the API server has ended the request, monotonic ms. */
  readonly endsMs: number;
}

/** A request without a response may take effect for this long: the default of `--request-timeout` of an API server. */
export const LOST_REMOVAL_MS = 60_000;

/** Returns the scope of the entries of a slice. */
export function departureScope(key: string, sliceName: string): string {
  return `${key}\0${sliceName}`;
}
