/** What is done, as Kubernetes and its metrics name it. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'patch' | 'delete';

/** The HTTP method that each is sent as. */
export const HTTP_METHODS = {
  get: 'GET',
  list: 'GET',
  watch: 'GET',
  create: 'POST',
  patch: 'PATCH',
  delete: 'DELETE',
} as const satisfies Record<Verb, string>;

/** One call, ready to be sent but for the headers. */
export interface Call {
  readonly verb: Verb;
  /** With its query, but for the API server's own deadline, which is what is left of `timeoutMs`. */
  readonly path: string;
  readonly body?: string;
  /** For messages: what is done to which object. Asked for only when it fails. */
  readonly action: () => string;
  /** For all of it: fetching credentials, waiting for a connection, a second try after 401, the whole answer. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onChunk?: ((chunk: Buffer) => void) | undefined;
  readonly onOpen?: (() => void) | undefined;
}
