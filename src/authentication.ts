/** What `--auth` and the flags that go with it come to: what the reporting service is given of it. */
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { errorMessage } from './error-message.ts';
import type { ServerAuth } from './grpc/reporting-server.ts';
import { TlsAcceptor, TlsMaterialError, type ClientCertMode } from './grpc/tls-acceptor.ts';
import type { ApiClient } from './k8s/client.ts';
import { reviewToken, TOKEN_REVIEW_RESOURCE, type TokenReviewObject } from './k8s/token-review.ts';
import type { Log } from './log.ts';
import { watchTlsFiles, readTlsFiles } from './tls-files.ts';

/** Who may report, and how that follows its files. */
export interface Authentication {
  readonly auth: ServerAuth;
  /** Follows the files from now on: new connections get what they hold. The answer ends it. */
  watchFiles(): () => void;
}

/** Whether a peer is asked for a certificate. */
const CLIENT_CERT_MODES = {
  insecure: 'none',
  mtls: 'required',
  token: 'none',
  'mtls-or-token': 'optional',
} as const satisfies Record<Config['auth'], ClientCertMode>;

/**
 * @throws TlsMaterialError when key, certificate or CA cannot be used
 * @throws TlsFileError when one cannot be read
 */
export async function createAuthentication(
  config: Config,
  { client, clock, log }: { readonly client: ApiClient; readonly clock: Clock; readonly log: Log },
): Promise<Authentication> {
  const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa } = config;
  if (cert === undefined || key === undefined) {
    // The configuration is checked: only insecure may go without.
    if (config.auth !== 'insecure') throw new TlsMaterialError(`--auth ${config.auth} requires TLS`);
    return { auth: { mode: config.auth, tls: undefined }, watchFiles: () => () => {} };
  }
  const paths = { cert, key, clientCa };
  const texts = await readTlsFiles(paths);
  const tls = new TlsAcceptor(texts, CLIENT_CERT_MODES[config.auth]);
  return {
    auth: serverAuth(config, client, tls),
    watchFiles: () =>
      watchTlsFiles(paths, texts, clock, {
        onChange(currentTexts) {
          try {
            tls.replace(currentTexts);
            log.info('reloaded TLS files; new connections use them');
          } catch (error) {
            log.error(
              { error: errorMessage(error) },
              'failed to reload TLS files; keeping the previous ones',
            );
          }
        },
        onError(error) {
          log.error({ error: errorMessage(error) }, 'failed to read TLS files; keeping the previous ones');
        },
      }),
  };
}

function serverAuth(config: Config, client: ApiClient, tls: TlsAcceptor): ServerAuth {
  const { auth: mode, tokenAudience: audience } = config;
  if (mode === 'insecure' || mode === 'mtls') return { mode, tls };
  const reviews = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
  return { mode, tls, audience, reviewToken: (token) => reviewToken(reviews, audience, token) };
}
