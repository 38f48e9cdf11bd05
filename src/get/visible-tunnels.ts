/** A tunnel as shown: the place in the output, and its text. */
export interface TunnelLine {
  /** Namespace and name, by which kubectl sorts. Equal for both forms of one tunnel. */
  readonly key: string;
  /** See `OutputFormat.encode`. */
  readonly text: string;
}

/** What is shown of one tunnel before and after a change; undefined: not at all. */
export type VisibleChange = (key: string, before: string | undefined, after: string | undefined) => void;

/**
 * The tunnels of a watch. A tunnel may be in several sources, that is, in an object and in slices; it is shown once, as
 * an object if there is one.
 */
export class VisibleTunnels {
  /** The texts of each source, by key. */
  readonly #sources = new Map<string, ReadonlyMap<string, string>>();
  /** The sources of each tunnel, that which is shown first. */
  readonly #holders = new Map<string, string[]>();
  readonly #onChange: VisibleChange;

  constructor(onChange: VisibleChange) {
    this.#onChange = onChange;
  }

  /** Replaces the tunnels of a source. */
  set(source: string, isObject: boolean, lines: readonly TunnelLine[]): void {
    const before = this.#sources.get(source);
    const after = new Map(lines.map(({ key, text }) => [key, text]));
    const affected = new Map(
      [...(before?.keys() ?? []), ...after.keys()].map((key) => [key, this.text(key)]),
    );
    if (after.size === 0) this.#sources.delete(source);
    else this.#sources.set(source, after);
    for (const [key, textBefore] of affected) {
      this.#setHolder(key, source, isObject, after.has(key));
      const textAfter = this.text(key);
      if (textBefore !== textAfter) this.#onChange(key, textBefore, textAfter);
    }
  }

  /** Returns the names of all sources that `isIncluded` accepts. */
  sources(isIncluded: (source: string) => boolean): string[] {
    return [...this.#sources.keys()].filter((source) => isIncluded(source));
  }

  /** Returns what is shown of a tunnel. */
  text(key: string): string | undefined {
    const [source = ''] = this.#holders.get(key) ?? [];
    return this.#sources.get(source)?.get(key);
  }

  /** Returns all tunnels in the order of kubectl. */
  sorted(): string[] {
    const keys = [...this.#holders.keys()].toSorted();
    return keys.map((key) => this.text(key) ?? '');
  }

  #setHolder(key: string, source: string, isObject: boolean, isPresent: boolean): void {
    const holders = this.#holders.get(key);
    const others = holders?.filter((holder) => holder !== source) ?? [];
    if (!isPresent) {
      if (others.length === 0) this.#holders.delete(key);
      else this.#holders.set(key, others);
    } else if (holders?.includes(source) !== true) {
      this.#holders.set(key, isObject ? [source, ...others] : [...others, source]);
    }
  }
}
