/** JSON over HTTP(S) by Node alone: what sets up and checks the control plane must not be the code it tests. */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';

/** An answer: any status is one. */
export interface JsonResponse {
  readonly status: number;
  /** Parsed when it is JSON, otherwise the text. */
  readonly body: unknown;
}

/** A request. */
export interface JsonRequest {
  readonly method: string;
  readonly url: string;
  /** PEM of what to trust; needed for https. */
  readonly ca?: string;
  readonly token?: string;
  readonly body?: unknown;
  /** For the whole exchange. */
  readonly timeoutMs: number;
}

/** Sends a request on a connection of its own. Rejects when there is no answer within the time. */
export async function requestJson(request: JsonRequest): Promise<JsonResponse> {
  const signal = AbortSignal.timeout(request.timeoutMs);
  const timeoutError = new Error(
    `${request.method} ${request.url}: no answer within ${request.timeoutMs} ms`,
  );
  const payload = request.body === undefined ? undefined : JSON.stringify(request.body);
  const headers: Record<string, string> = { accept: 'application/json' };
  if (request.token !== undefined) headers['authorization'] = `Bearer ${request.token}`;
  if (payload !== undefined) headers['content-type'] = 'application/json';
  const options = { method: request.method, headers, agent: false as const, signal };
  // No agent: a kept connection would hide that a server was stopped in between, and hold this process.
  return new Promise((resolve, reject) => {
    const call = request.url.startsWith('https:')
      ? httpsRequest(request.url, { ...options, ca: request.ca })
      : httpRequest(request.url, options);
    call.on('error', (error) => reject(signal.aborted ? timeoutError : error));
    call.on('response', (response) => {
      text(response).then(
        (responseText) => resolve({ status: response.statusCode ?? 0, body: parseBody(responseText) }),
        (error: unknown) => reject(signal.aborted ? timeoutError : error),
      );
    });
    call.end(payload);
  });
}

/** Errors of the API server's own filters are plain text. */
function parseBody(responseText: string): unknown {
  try {
    return JSON.parse(responseText);
  } catch {
    return responseText;
  }
}
