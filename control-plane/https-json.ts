/** JSON over HTTP(S), with Node only: setup and verification of the control plane must not use the code under test. */
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';

/** A response with any status. */
export interface JsonResponse {
  readonly status: number;
  /** The parsed JSON, or the text if it is not JSON. */
  readonly body: unknown;
}

/** A request. */
export interface JsonRequest {
  readonly method: string;
  readonly url: string;
  /** PEM of the trusted CA; required for https. */
  readonly ca?: string;
  readonly token?: string;
  /** A text is sent as it is, anything else as JSON; of a PATCH, it is a merge patch. */
  readonly body?: unknown;
  /** The Accept header. Default: JSON. */
  readonly accept?: string | undefined;
  /** Further headers, which take precedence. */
  readonly headers?: Readonly<Record<string, string>>;
  /** For the complete exchange. */
  readonly timeoutMs: number;
}

/** Sends a request on a new connection. Rejects if there is no response within `timeoutMs`. */
export async function requestJson(request: JsonRequest): Promise<JsonResponse> {
  const signal = AbortSignal.timeout(request.timeoutMs);
  const timeoutError = new Error(
    `${request.method} ${request.url}: no response within ${request.timeoutMs} ms`,
  );
  const { body } = request;
  const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const headers: Record<string, string> = { accept: request.accept ?? 'application/json' };
  if (request.token !== undefined) headers['authorization'] = `Bearer ${request.token}`;
  if (payload !== undefined) {
    const isPatch = request.method === 'PATCH';
    headers['content-type'] = isPatch ? 'application/merge-patch+json' : 'application/json';
    // Node adds none to a DELETE.
    headers['content-length'] = String(Buffer.byteLength(payload));
  }
  Object.assign(headers, request.headers);
  const options = { method: request.method, headers, agent: false as const, signal };
  // No agent: a kept-alive connection would hide a restart of the server and keep this process alive.
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

/** Errors of the API server's request filters are plain text. */
function parseBody(responseText: string): unknown {
  try {
    return JSON.parse(responseText);
  } catch {
    return responseText;
  }
}
