import type { ServerResponse } from 'node:http';
import type { ApiKind } from './api-kind.ts';
import type { ObjectFormat } from './http-response.ts';
import type { JsonObject } from './objects.ts';
import type { ApiPath } from './requests.ts';
import type { ApiStore } from './store.ts';
import type { OpenWatch, WatchCache } from './watch-cache.ts';

/** As in kube-apiserver. */
const BOOKMARK_INTERVAL_MS = 60_000;
/** kube-apiserver ends a watch without a timeout after 30 to 60 minutes. */
const DEFAULT_TIMEOUT_S = 1800;
/** A client that does not read loses its watch, instead of making this process buffer. */
const MAX_BUFFERED_BYTES = 64 * 1024 * 1024;

/**
 * Serves a watch: the current objects if the client knows no version or asks for them, the changes since its version,
 * and bookmarks if it accepts them. The watch ends after `timeoutSeconds`.
 *
 * @throws SelectorError if a selector is not valid; nothing has been sent then
 */
export function serveWatch(
  response: ServerResponse,
  { store, watchCache }: { readonly store: ApiStore; readonly watchCache: WatchCache },
  { kind, path, format }: { readonly kind: ApiKind; readonly path: ApiPath; readonly format: ObjectFormat },
): void {
  const { query } = path;
  const selects = store.selectorFor(kind, path);
  const requested = query.get('resourceVersion') ?? '';
  const sendsInitialEvents = query.get('sendInitialEvents') === 'true';
  const isFromNow = requested === '' || requested === '0' || sendsInitialEvents;
  const watch: OpenWatch = {
    resource: kind.plural,
    fromVersion: isFromNow ? store.version : Number(requested),
    selects,
    encode: (_object, text) => JSON.stringify(format.encode(JSON.parse(text) as JsonObject)),
    sendLine(text) {
      response.write(`${text}\n`);
      if (response.writableLength > MAX_BUFFERED_BYTES) response.destroy();
    },
  };
  const bookmark = (annotations?: JsonObject): void =>
    watchCache.sendBookmark(watch, store.version, {
      apiVersion: kind.apiVersion,
      kind: kind.kind,
      metadata: { creationTimestamp: null, ...(annotations === undefined ? {} : { annotations }) },
    });

  response.writeHead(200, { 'content-type': format.contentType });
  response.flushHeaders();
  if (isFromNow) {
    for (const { object, text } of store.select(kind, selects))
      watch.sendLine(`{"type":"ADDED","object":${watch.encode?.(object, text) ?? text}}`);
    if (sendsInitialEvents) bookmark({ 'k8s.io/initial-events-end': 'true' });
  } else if (!watchCache.replay(watch)) {
    response.end();
    return;
  }
  watchCache.add(watch);
  const bookmarks =
    query.get('allowWatchBookmarks') === 'true' ? setInterval(bookmark, BOOKMARK_INTERVAL_MS) : undefined;
  const timeout = setTimeout(
    () => response.end(),
    Number(query.get('timeoutSeconds') ?? DEFAULT_TIMEOUT_S) * 1000,
  );
  response.on('close', () => {
    watchCache.remove(watch);
    clearInterval(bookmarks);
    clearTimeout(timeout);
  });
}
