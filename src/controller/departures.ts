/**
 * The tunnels of which one form is being removed because the other one shows them. While the write is in flight, the
 * form that it removes is still in the cache, but nothing may rely on it: if the representation changed at that moment,
 * the other form could be removed, too.
 */
export class Departures {
  readonly #names = new Map<string, Set<string>>();

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

  /** Returns true while the form of a tunnel is being removed. */
  has(scope: string, tunnelName: string): boolean {
    return this.#names.get(scope)?.has(tunnelName) === true;
  }
}

/** Returns the scope of the entries of a slice. */
export function departureScope(key: string, sliceName: string): string {
  return `${key}\0${sliceName}`;
}
