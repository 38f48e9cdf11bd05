import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { errorMessage } from './error-message.ts';
import { readFiles, watchFiles } from './file-watcher.ts';
import type { ServerAuth } from './grpc/reporting-server.ts';
import { TlsAcceptor, TlsMaterialError, type ClientCertMode } from './grpc/tls-acceptor.ts';
import type { ApiClient } from './k8s/client.ts';
import { reviewToken, TOKEN_REVIEW_RESOURCE, type TokenReviewObject } from './k8s/token-review.ts';
import type { Log } from './log.ts';

/** The client authentication of the reporting service, as configured by `--auth` and the flags that belong to it. */
export interface Authentication {
  readonly auth: ServerAuth;
  /**
   * Reloads the TLS files when they change; new connections use the new contents.
   *
   * @returns a function that stops watching
   */
  watchFiles(): () => void;
}

/** Whether clients are asked for a certificate, by value of `--auth`. */
const CLIENT_CERT_MODES = {
  insecure: 'none',
  mtls: 'required',
  token: 'none',
  'mtls-or-token': 'optional',
} as const satisfies Record<Config['auth'], ClientCertMode>;

/**
 * Reads the TLS files and creates the client authentication.
 *
 * @throws TlsMaterialError if the key, the certificate or the CA is invalid
 * @throws FileReadError if one of the files cannot be read
 */
export async function createAuthentication(
  config: Config,
  { client, clock, log }: { readonly client: ApiClient; readonly clock: Clock; readonly log: Log },
): Promise<Authentication> {
  const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa } = config;
  if (cert === undefined || key === undefined) {
    // The configuration has been validated: only insecure allows plaintext.
    if (config.auth !== 'insecure') throw new TlsMaterialError(`--auth ${config.auth} requires TLS`);
    return { auth: { mode: config.auth, tls: undefined }, watchFiles: () => () => {} };
  }
  const paths = { cert, key, clientCa };
  const contents = await readFiles(paths);
  const tls = new TlsAcceptor(contents, CLIENT_CERT_MODES[config.auth]);
  return {
    auth: serverAuth(config, client, tls),
    watchFiles: () =>
      watchFiles(paths, contents, {
        clock,
        log,
        onChange(newContents) {
          try {
            tls.replace(newContents);
            log.info('reloaded TLS files; new connections use them');
          } catch (error) {
            log.error(
              { error: errorMessage(error) },
              'failed to reload TLS files; keeping the previous ones',
            );
          }
        },
        onError(error) {
          log.error({ error: error.message }, 'failed to read TLS files; keeping the previous ones');
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
