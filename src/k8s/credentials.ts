import type { Clock } from '../clock.ts';

/** What proves to each other who client and server are. Never changed in place: new credentials are a new object. */
export interface Credentials {
  /** PEM; undefined for the certificate authorities that Node trusts. */
  readonly ca?: string | undefined;
  /** Client certificate and key in PEM, both or none. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Name that the server's certificate must have, where it is not the host's. */
  readonly serverName?: string | undefined;
  /** Value of the Authorization header. */
  readonly authorization?: string | undefined;
  /** Kubeconfig's `as`. */
  readonly impersonateUser?: string | undefined;
  /** Wall-clock milliseconds after which they are not accepted any more; undefined when not known. */
  readonly expiresAtMs?: number | undefined;
}

/** Credentials over time. */
export interface CredentialSource {
  /** The credentials to use now. A promise only when they have expired and new ones have to be fetched first. */
  current(): Credentials | Promise<Credentials>;
  /**
   * Fetches everything anew, after the API server or TLS refused what `current` gave. Calls at the same time share one
   * fetch, and none is made within 5 s of the last. Rejects when the fetch failed; `current` then goes on as before.
   */
  refresh(): Promise<void>;
}

/**
 * True when a PEM text holds a certificate. To Node an empty one means the public authorities, and any other one means none
 * at all, so that the fault would be looked for at the server.
 */
export function containsCertificate(pem: string): boolean {
  return /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/.test(pem);
}

/** Rotated files are noticed within this. */
const RELOAD_INTERVAL_MS = 10_000;
/** Expiring credentials are renewed in the background this long before. */
const RENEW_BEFORE_EXPIRY_MS = 60_000;
/** A refused credential of 64 calls in flight is one fetch, not 64; a fetch may start a process. */
const MIN_RENEWAL_INTERVAL_MS = 5_000;

/** Where credentials come from. */
export interface CredentialLoader {
  /** Fetches everything, however dear. */
  renew(): Promise<Credentials>;
  /** Reads again what lies in files, cheaply; called at most every 10 s, and only while credentials are in use. */
  reload?(current: Credentials): Promise<Credentials>;
}

/** Keeps `initial` fresh by the rules above. Failures in the background are silent: the old ones serve until refused. */
export function createCredentialSource(
  initial: Credentials,
  loader: CredentialLoader,
  clock: Clock,
): CredentialSource {
  let credentials = initial;
  let loadedMs = clock.monotonicMs();
  let renewal: { startedMs: number; pending: boolean; done: Promise<void> } = {
    startedMs: Number.NEGATIVE_INFINITY,
    pending: false,
    done: Promise.resolve(),
  };

  function adopt(loaded: Credentials): void {
    // The same object for the same content: headers and connections hang on it.
    if (JSON.stringify(loaded) !== JSON.stringify(credentials)) credentials = loaded;
  }

  function renew(): Promise<void> {
    const nowMs = clock.monotonicMs();
    if (renewal.pending || nowMs - renewal.startedMs < MIN_RENEWAL_INTERVAL_MS) return renewal.done;
    const started = { startedMs: nowMs, pending: true, done: Promise.resolve() };
    started.done = loader
      .renew()
      .then(adopt)
      .finally(() => {
        started.pending = false;
      });
    // Whoever waits sees the failure; when nobody does, it is no unhandled rejection.
    started.done.catch(() => undefined);
    renewal = started;
    loadedMs = nowMs;
    return started.done;
  }

  function reload(): void {
    loadedMs = clock.monotonicMs();
    const before = credentials;
    loader.reload?.(before).then(
      // A renewal in the meantime knows better.
      (loaded) => (credentials === before ? adopt(loaded) : undefined),
      () => undefined,
    );
  }

  return {
    current() {
      const { expiresAtMs } = credentials;
      if (expiresAtMs !== undefined) {
        const remainingMs = expiresAtMs - clock.wallMs();
        if (remainingMs <= 0) {
          return renew().then(
            () => credentials,
            // Their expiry is by this machine's clock, which may be wrong: let the API server decide.
            () => credentials,
          );
        }
        if (remainingMs < RENEW_BEFORE_EXPIRY_MS) void renew();
      }
      if (clock.monotonicMs() - loadedMs >= RELOAD_INTERVAL_MS) reload();
      return credentials;
    },
    refresh: renew,
  };
}
