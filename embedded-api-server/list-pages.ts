/** A page of a list. */
export interface Page {
  /** The version of the store that all pages of the list show. */
  readonly version: number;
  readonly items: readonly string[];
  /** Continues the list; empty on the last page. */
  readonly token: string;
  /** Number of items on later pages. */
  readonly remaining: number;
}

/** Unfinished lists that are kept, as long as they are not too many. */
const MAX_UNFINISHED = 1000;

/** The rest of unfinished lists, by continue token. A token stays valid, so that a lost page can be requested again. */
export class ListPages {
  readonly #rests = new Map<string, { readonly version: number; readonly items: readonly string[] }>();
  #tokens = 0;

  /** @param limit 0 for a single page */
  first(version: number, items: readonly string[], limit: number): Page {
    const size = limit > 0 ? limit : items.length;
    const rest = items.slice(size);
    let token = '';
    if (rest.length > 0) {
      this.#tokens += 1;
      token = `page-${this.#tokens}`;
      this.#rests.set(token, { version, items: rest });
      const [oldest = ''] = this.#rests.keys();
      if (this.#rests.size > MAX_UNFINISHED) this.#rests.delete(oldest);
    }
    return { version, items: items.slice(0, size), token, remaining: rest.length };
  }

  /** Returns undefined if the token is not valid. */
  next(token: string, limit: number): Page | undefined {
    const rest = this.#rests.get(token);
    return rest === undefined ? undefined : this.first(rest.version, rest.items, limit);
  }

  /** Invalidates all tokens. */
  clear(): void {
    this.#rests.clear();
  }
}
