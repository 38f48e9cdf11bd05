/** Requests as kubectl sends them: any content type, any Accept header. */
import { request as httpsRequest } from 'node:https';
import { text } from 'node:stream/consumers';

/** A server and its credential. */
export interface RawApiTarget {
  readonly url: string;
  /** PEM. */
  readonly caData: string;
  readonly token: string;
}

/** A request. */
export interface RawApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A response with any status. */
export interface RawApiResponse {
  readonly status: number;
  readonly contentType: string;
  /** Parsed if it is JSON; otherwise the text. */
  readonly body: unknown;
}

const TIMEOUT_MS = 60_000;

/** Sends a request on a new connection. */
export async function sendRaw(target: RawApiTarget, request: RawApiRequest): Promise<RawApiResponse> {
  const { method, path, body, headers = {} } = request;
  const payload = typeof body === 'string' || body === undefined ? body : JSON.stringify(body);
  const { promise, resolve, reject } = Promise.withResolvers<RawApiResponse>();
  const call = httpsRequest(
    target.url + path,
    {
      method,
      ca: target.caData,
      agent: false,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: {
        accept: 'application/json',
        authorization: `Bearer ${target.token}`,
        ...(body === undefined
          ? {}
          : {
              'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
              'content-length': String(Buffer.byteLength(payload ?? '')),
            }),
        ...headers,
      },
    },
    (response) => {
      const contentType = response.headers['content-type'] ?? '';
      text(response).then((received) => {
        const isJson = contentType.startsWith('application/json');
        resolve({
          status: response.statusCode ?? 0,
          contentType,
          body: isJson ? (JSON.parse(received) as unknown) : received,
        });
      }, reject);
    },
  );
  call.on('error', reject);
  call.end(payload);
  return await promise;
}
