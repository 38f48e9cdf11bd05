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
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  let next: Promise<ListPage<T>> | undefined = source.list({ limit, signal: either });
  let resourceVersion = '';
  let lastToken: string | undefined;
  try {
    while (next !== undefined) {
      const { items, continueToken, resourceVersion: version }: ListPage<T> = await next;
      if (continueToken !== undefined && continueToken === lastToken) {
        // A cache on the way that takes no heed of the query would else have it go on for ever.
        throw new ApiError(
          'unexpected_response',
          `list ${source.title}: two consecutive pages with the same continue token`,
        );
      }
      lastToken = continueToken;
      next = continueToken === undefined ? undefined : source.list({ limit, signal: either, continueToken });
      // Should `onPage` throw, nobody awaits the page already asked for.
      next?.catch(() => undefined);
      resourceVersion = version;
      onPage(items);
    }
  } finally {
    failed.abort();
  }
  return resourceVersion;
}
