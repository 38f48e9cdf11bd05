import { ApiError } from './api-error.ts';
import type { ListPage, ResourceClient } from './resource-client.ts';

/**
 * Lists everything page by page and hands over each page as it comes; the API server works on the next one meanwhile.
 * Two pages are held at most, however long the list is. All pages show the store at one version, which is returned.
 *
 * Rejects with what a page or `onPage` failed with; `expired` when the pages took longer than the API server keeps a
 * version, which only a new list cures.
 *
 * @param limit most items a page
 */
export async function listPages<T>(
  source: Pick<ResourceClient<T>, 'list' | 'title'>,
  limit: number,
  signal: AbortSignal,
  onPage: (items: readonly T[]) => void,
): Promise<string> {
  const failure = new AbortController();
  const combinedSignal = AbortSignal.any([signal, failure.signal]);
  let nextPage: Promise<ListPage<T>> | undefined = source.list({ limit, signal: combinedSignal });
  let resourceVersion = '';
  let previousToken: string | undefined;
  try {
    while (nextPage !== undefined) {
      const { items, continueToken, resourceVersion: version }: ListPage<T> = await nextPage;
      if (continueToken !== undefined && continueToken === previousToken) {
        // A cache on the way that takes no heed of the query would else have it go on for ever.
        throw new ApiError(
          'unexpected_response',
          `list ${source.title}: two consecutive pages with the same continue token`,
        );
      }
      previousToken = continueToken;
      nextPage =
        continueToken === undefined
          ? undefined
          : source.list({ limit, signal: combinedSignal, continueToken });
      // Should `onPage` throw, nobody awaits the page already asked for.
      nextPage?.catch(() => undefined);
      resourceVersion = version;
      onPage(items);
    }
  } finally {
    failure.abort();
  }
  return resourceVersion;
}
