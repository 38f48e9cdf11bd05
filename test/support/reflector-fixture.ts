import { createApiClient } from '../../src/k8s/client.ts';
import type { ApiObject } from '../../src/k8s/resource-client.ts';
import { Reflector, type ReflectorHandler, type ReflectorState } from '../../src/k8s/reflector.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import { startScriptedApiServer } from './scripted-api-server.ts';

/** A handler that keeps versions by name, like a cache; relists replace them by mark and sweep. */
export class RecordingHandler implements ReflectorHandler<ApiObject> {
  readonly versions = new Map<string, string>();
  /** The calls, for example `ADDED a 5`. */
  readonly calls: string[] = [];
  /** The next call with this prefix throws. */
  failOn: string | undefined;
  /** Versions of own writes, which need no event. */
  readonly ownWrites = new Set<string>();
  /** The uid and the version of each own deletion. */
  readonly ownDeletions = new Set<string>();
  #listed: Set<string> | undefined;

  replaceBegin(): void {
    this.#note('begin');
    this.#listed = new Set();
  }

  replaceItem({ metadata }: ApiObject): void {
    this.#note(`item ${metadata.name} ${metadata.resourceVersion}`);
    this.#listed?.add(metadata.name);
    this.versions.set(metadata.name, metadata.resourceVersion);
  }

  replaceEnd(): void {
    this.#note('end');
    for (const name of this.versions.keys()) if (this.#listed?.has(name) !== true) this.versions.delete(name);
  }

  event(type: 'ADDED' | 'MODIFIED' | 'DELETED', { metadata }: ApiObject): void {
    this.#note(`${type} ${metadata.name} ${metadata.resourceVersion}`);
    if (type === 'DELETED') this.versions.delete(metadata.name);
    else this.versions.set(metadata.name, metadata.resourceVersion);
  }

  acknowledgeOwnWrite(resourceVersion: string): boolean {
    return this.ownWrites.delete(resourceVersion);
  }

  acknowledgeOwnDeletion(uid: string, resourceVersion: string): boolean {
    return this.ownDeletions.delete(`${uid} ${resourceVersion}`);
  }

  /** Returns `a=5 b=7`, sorted by name. */
  toString(): string {
    return [...this.versions]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, version]) => `${name}=${version}`)
      .join(' ');
  }

  #note(call: string): void {
    this.calls.push(call);
    if (this.failOn !== undefined && call.startsWith(this.failOn)) {
      this.failOn = undefined;
      throw new Error('the store is full');
    }
  }
}

/** A reflector with a scripted API server and a fake clock. */
export type ReflectorFixture = Awaited<ReturnType<typeof startReflectorFixture>>;

/** `random` always returns 0.5, so a delay is three quarters of the full backoff. */
export async function startReflectorFixture(pageLimit?: number) {
  const server = await startScriptedApiServer();
  const clock = new FakeClock();
  const store = new RecordingHandler();
  const states: string[] = [];
  const logged: string[] = [];
  const client = createApiClient({
    connection: server.connection(),
    clock,
    userAgent: 'reverse-tunnel-operator/test',
    connections: 2,
  });
  const reflector = new Reflector<ApiObject>({
    source: client.resource({
      group: 'reverse-tunnel.io',
      version: 'v1alpha1',
      plural: 'reversetunnels',
      namespace: 'default',
    }),
    handler: store,
    clock,
    random: () => 0.5,
    log: {
      debug: (fields, message) => logged.push(`debug ${logLine(fields, message)}`),
      info: (fields, message) => logged.push(`info ${logLine(fields, message)}`),
      warn: (fields, message) => logged.push(`warn ${logLine(fields, message)}`),
    },
    onStateChange: (state, error) => states.push(error === undefined ? state : `${state}: ${error.message}`),
    ...(pageLimit === undefined ? {} : { pageLimit }),
  });
  const abort = new AbortController();
  let running: Promise<void> | undefined;

  async function waitForState(state: ReflectorState): Promise<void> {
    await eventually(`state ${state}, not ${states.at(-1)}`, () => states.at(-1)?.startsWith(state) === true);
  }

  return {
    server,
    clock,
    store,
    client,
    reflector,
    /** The states in order; a failure as `broken: <message>`. */
    states,
    /** Log lines as `warn <error or message> (<hint>)`. */
    logged,
    /** Starts the reflector; `stop` ends it. */
    run(): void {
      running = reflector.run(abort.signal);
    },
    /** Waits until the last state starts with this. */
    waitForState,
    /** Waits until the store has this content, in the format of `RecordingHandler.toString`. */
    async waitForContent(content: string): Promise<void> {
      await eventually(
        `the store to hold "${content}", not "${String(store)}"`,
        () => store.toString() === content,
      );
    },
    /** After a failure: returns the time until the reflector retries. */
    async backoffMs(): Promise<number> {
      // No call and no watch is pending then, so the only timer is the backoff.
      await waitForState('broken');
      await eventually('one timer', () => clock.pendingTimersMs.length === 1);
      return clock.pendingTimersMs[0] ?? Number.NaN;
    },
    /** Stops the reflector, waits for its end and closes everything. */
    async stop(): Promise<void> {
      abort.abort();
      await running;
      await client.close();
      await server.close();
      if (clock.pendingTimersMs.length > 0)
        throw new Error(`timers left: ${clock.pendingTimersMs.join(', ')}`);
    },
  };
}

function logLine(fields: object, message: string): string {
  const { error = message, hint } = fields as { readonly error?: string; readonly hint?: string };
  return hint === undefined ? error : `${error} (${hint})`;
}
