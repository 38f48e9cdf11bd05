import type { Clock } from '../clock.ts';

/** TLS material and credentials of a client. Immutable: new credentials are a new object. */
export interface Credentials {
  /** PEM; undefined for the certificate authorities that Node.js trusts. */
  readonly ca?: string | undefined;
  /** Client certificate and key in PEM; either both or none. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Name in the server's certificate if it differs from the host. */
  readonly serverName?: string | undefined;
  /** Value of the Authorization header. */
  readonly authorization?: string | undefined;
  /** The account as which the API server executes the requests; undefined for the authenticated one. */
  readonly impersonation?: Impersonation | undefined;
  /** True: the server's certificate is not verified. */
  readonly skipsVerification?: boolean | undefined;
  /** Expiry in wall-clock milliseconds since 1970; undefined if unknown. */
  readonly expiresAtMs?: number | undefined;
}

/** An account to impersonate, as in the fields `as`, `as-uid`, `as-groups` and `as-user-extra` of a kubeconfig. */
export interface Impersonation {
  readonly user: string;
  readonly uid: string | undefined;
  readonly groups: readonly string[];
  /** Keys with one value each; a key may occur more than once. */
  readonly extra: readonly (readonly [key: string, value: string])[];
}

/** A source of credentials that are renewed over time. */
export interface CredentialSource {
  /** Returns the credentials to use now: a promise only if they have expired and must be renewed first. */
  current(): Credentials | Promise<Credentials>;
  /**
   * Renews the credentials after the API server or TLS rejected the current ones. Concurrent calls share one renewal,
   * and renewals are at least 5 s apart. Rejects if the renewal failed; `current` then returns the previous
   * credentials.
   */
  refresh(): Promise<void>;
}

/**
 * Reports whether a PEM text contains a certificate. Node.js takes an empty text for the public authorities and any
 * other text without a certificate for no authority at all, which looks like a fault of the server.
 */
export function containsCertificate(pem: string): boolean {
  return /-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----/.test(pem);
}

/** Maximum delay until a rotated file is noticed. */
const RELOAD_INTERVAL_MS = 10_000;
/** Expiring credentials are renewed in the background this long before their expiry. */
const RENEW_BEFORE_EXPIRY_MS = 60_000;
/** A rejected credential of 64 calls in flight causes one renewal instead of 64; a renewal may start a process. */
const MIN_RENEWAL_INTERVAL_MS = 5_000;

/** Loads credentials. */
export interface CredentialLoader {
  /** Loads everything, whatever it costs. */
  renew(): Promise<Credentials>;
  /** Reloads what is stored in files, cheaply. Called at most every 10 s, and only while credentials are in use. */
  reload?(current: Credentials): Promise<Credentials>;
}

/**
 * Creates a source that keeps `initial` up to date by these rules. Failures in the background are not reported: the
 * previous credentials stay in use until they are rejected.
 */
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
    // Equal content keeps its identity, because headers and connections are cached per object.
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
    // Callers that wait see the failure; without any, it must not become an unhandled rejection.
    started.done.catch(() => undefined);
    renewal = started;
    loadedMs = nowMs;
    return started.done;
  }

  function reload(): void {
    loadedMs = clock.monotonicMs();
    const before = credentials;
    loader.reload?.(before).then(
      // A concurrent renewal is more recent.
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
            // The expiry depends on this machine's clock, which may be wrong; the API server decides.
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
