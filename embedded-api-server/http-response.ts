import type { ServerResponse } from 'node:http';
import type { ApiKind } from './api-kind.ts';
import { toCoreEvent } from './core-events.ts';
import type { ApiServerObject, JsonObject } from './objects.ts';
import type { ApiResponse } from './responses.ts';
import { type IncludeObject, renderTable } from './table.ts';

/** The form of the objects that a client accepts. */
export interface ObjectFormat {
  readonly contentType: string;
  /** Returns the form of a document of the API: an object, a list, or a Status. */
  encode(document: JsonObject): JsonObject;
}

/**
 * Returns the form that the Accept header asks for.
 *
 * @param isCoreEvent whether an Event was requested in the core group
 * @param nowMs ms since 1970, for ages in tables
 */
export function objectFormat(
  kind: ApiKind,
  accept: string,
  options: { isCoreEvent: boolean; includeObject: IncludeObject; nowMs: number },
): ObjectFormat {
  const { isCoreEvent, includeObject, nowMs } = options;
  const convert = (document: JsonObject): JsonObject =>
    isCoreEvent && document['kind'] !== 'Status' ? toCoreEvent(document) : document;
  if (!/;as=Table\b/.test(accept)) return { contentType: 'application/json', encode: convert };
  return {
    contentType: 'application/json',
    encode(document) {
      if (document['kind'] === 'Status') return document;
      const { items, metadata } = document;
      const objects = (Array.isArray(items) ? items : [document]) as ApiServerObject[];
      const { resourceVersion } = metadata as { resourceVersion?: string };
      const { continue: token, ...rest } = metadata as { continue?: string };
      const listMetadata = Array.isArray(items)
        ? { ...rest, ...(token === '' ? {} : { continue: token }) }
        : { resourceVersion };
      return renderTable(kind, objects, { metadata: listMetadata, nowMs, includeObject });
    },
  };
}

/** Sends a response of the store. */
export function sendResponse(response: ServerResponse, answer: ApiResponse, format?: ObjectFormat): void {
  const isJson = answer.text.startsWith('{');
  const text =
    format !== undefined && isJson && answer.status < 300
      ? JSON.stringify(format.encode(JSON.parse(answer.text) as JsonObject))
      : answer.text;
  response.writeHead(answer.status, {
    'content-type': isJson ? (format?.contentType ?? 'application/json') : 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    ...(answer.retryAfter === undefined ? {} : { 'retry-after': answer.retryAfter }),
  });
  response.end(text);
}

/** Sends a document. */
export function sendDocument(
  response: ServerResponse,
  body: JsonObject,
  { contentType = 'application/json', status = 200 }: { contentType?: string; status?: number } = {},
): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
