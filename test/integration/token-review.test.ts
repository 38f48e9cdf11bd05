import { createHmac, createPrivateKey, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { systemClock, type Clock } from '../../src/clock.ts';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import { reviewToken, TOKEN_REVIEW_RESOURCE, type TokenReviewObject } from '../../src/k8s/token-review.ts';
import { resolveConnection } from '../../src/k8s/connection.ts';
import { createCertificateAuthority } from '../support/certificates.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { startScriptedApiServer } from '../support/scripted-api-server.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

const DEADLINE_MS = 30_000;
const AUDIENCE = 'reverse-tunnel-operator';
/** The least that the API server gives. */
const TOKEN_SECONDS = 600;

const ours = createCertificateAuthority('ours');
const others = createCertificateAuthority('others');

describe('a ServiceAccount token on the reporting port', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let client: ApiClient;
  let world: TestServer;
  let reviews: number;

  before(async () => {
    namespace = await createNamespace(controlPlane(), 'tokens');
    const connection = await resolveConnection({
      kubeconfig: controlPlane().kubeconfigPath,
      env: {},
      clock: systemClock,
    });
    client = createApiClient({
      connection,
      clock: systemClock,
      userAgent: 'test/1',
      connections: 4,
      onRequest: () => (reviews += 1),
    });
  });
  after(() => client.close());

  async function serve(mode: 'token' | 'mtls-or-token' = 'token', clock: Clock = systemClock): Promise<void> {
    reviews = 0;
    const resource = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
    const tls =
      mode === 'token'
        ? new TlsAcceptor(serverMaterial(ours), 'none')
        : new TlsAcceptor(serverMaterial(ours, ours), 'optional');
    world = await startTestServer({
      auth: {
        mode,
        tls,
        audience: AUDIENCE,
        reviewToken: (token) => reviewToken(resource, AUDIENCE, token),
      },
      clock,
    });
  }
  afterEach(() => world.stop());

  async function newToken(account: string, audience = AUDIENCE): Promise<string> {
    const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
    await controlPlane().request('POST', accounts, { metadata: { name: account } });
    const { status: code, body } = await controlPlane().request('POST', `${accounts}/${account}/token`, {
      spec: { audiences: [audience], expirationSeconds: TOKEN_SECONDS },
    });
    expect(code).to.equal(201);
    return (body as { status: { token: string } }).status.token;
  }

  /** Reports once; how that ended, and whether anything was decoded. */
  async function attempt(token: string | undefined): Promise<{ got: string; decoded: number }> {
    let decoded = 0;
    onDecodeStart(0, () => (decoded += 1));
    const stream = world.open(peerCredentials(ours), token);
    stream.sendBytes(firstReport('r-0'));
    const end = stream.ended.then(({ code, details }) => `${status[code]}: ${details}`);
    const got = await Promise.race([
      stream.next().then(
        () => 'ACK',
        () => end,
      ),
      end,
    ]);
    return { got, decoded };
  }

  it('opens the port to who it was made for, and says which ServiceAccount that is', async () => {
    await serve();
    expect(await attempt(await newToken('envoy'))).to.deep.equal({ got: 'ACK', decoded: 1 });
    expect(world.peers).to.deep.equal([{ kind: 'token', namespace, serviceAccount: 'envoy' }]);
    expect(reviews).to.equal(1);
  });

  it('is reviewed once for 50 streams that come at once', async () => {
    await serve();
    const token = await newToken('envoy');
    const streams = Array.from({ length: 50 }, (_, i) => {
      const stream = world.open(peerCredentials(ours), token);
      stream.sendBytes(firstReport(`r-${i}`));
      return stream;
    });
    await Promise.all(streams.map((stream) => stream.next()));
    expect(world.peers).to.have.length(50);
    expect(reviews).to.equal(1);
  });

  for (const { which, make, refused, said, asked } of [
    {
      which: 'no token',
      make: async () => undefined,
      refused: 'no_credential',
      said: /^UNAUTHENTICATED: .*missing credential/,
      asked: 0,
    },
    {
      which: 'garbage',
      make: async () => 'garbage',
      refused: 'malformed_token',
      said: /^UNAUTHENTICATED: .*not a ServiceAccount token$/,
      asked: 0,
    },
    {
      which: 'one for the API server',
      make: () => newToken('envoy', 'https://kubernetes.default.svc'),
      refused: 'token_audience',
      said: /^UNAUTHENTICATED: .*another audience$/,
      asked: 0,
    },
    {
      which: 'an expired one',
      make: () => signed({ exp: -60 }),
      refused: 'token_expired',
      said: /^UNAUTHENTICATED: .*has expired$/,
      asked: 0,
    },
    {
      which: 'one for another audience that says it were for this one',
      make: async () => forged(await newToken('envoy', 'others')),
      refused: 'token_rejected',
      said: /^UNAUTHENTICATED: .*token rejected by the API server/,
      asked: 1,
    },
    {
      which: 'one that is signed by somebody else',
      make: async () => resigned(await newToken('envoy')),
      refused: 'token_rejected',
      said: /^UNAUTHENTICATED: .*token rejected by the API server/,
      asked: 1,
    },
    {
      which: 'one of a user who is no ServiceAccount',
      make: async () => controlPlane().adminToken,
      refused: 'malformed_token',
      said: /^UNAUTHENTICATED: /,
      asked: 0,
    },
    {
      which: 'one of a deleted ServiceAccount',
      make: () => ofDeleted(),
      refused: 'token_rejected',
      said: /^UNAUTHENTICATED: .*token rejected by the API server/,
      asked: 1,
    },
  ]) {
    it(`refuses ${which}, reads nothing of what is sent with it and tells nobody the token`, async function () {
      this.timeout(2 * DEADLINE_MS);
      const token = await make();
      await serve();
      const { got, decoded } = await attempt(token);
      expect(got).to.match(said);
      expect({ decoded, presence: world.connectionEvents, reviews }).to.deep.equal({
        decoded: 0,
        presence: [],
        reviews: asked,
      });
      expect(await world.count('streamsRejected', refused)).to.equal(1);
      expect(world.logged.filter((line) => line['reason'] === refused)).to.have.length(1);
      expectNoToken(token);
      // By the same eyes: who is let in is decoded.
      expect(await attempt(await newToken('good'))).to.deep.equal({ got: 'ACK', decoded: 1 });
    });
  }

  it('that has expired is refused by the API server too, where the clock here is behind', async () => {
    await serve('token', { ...systemClock, wallMs: () => Date.now() - 3_600_000 });
    const { got, decoded } = await attempt(await signed({ exp: -60 }));
    expect(got).to.match(/^UNAUTHENTICATED: .*token rejected by the API server/);
    expect({ decoded, reviews }).to.deep.equal({ decoded: 0, reviews: 1 });
  });

  it('ends the stream when it expires', async function () {
    this.timeout(DEADLINE_MS);
    await serve();
    const stream = world.open(peerCredentials(ours), await signed({ exp: 6 }));
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    expect(await stream.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'credential expired; reconnect with a new one',
    });
    expect(await world.count('streamsClosed', 'credential_expired')).to.equal(1);
  });

  it('goes by `mtls-or-token` where there is no certificate; a certificate goes first, and a bad one is refused', async () => {
    await serve('mtls-or-token');
    expect((await attempt(await newToken('envoy'))).got).to.equal('ACK');
    const both = world.open(peerCredentials(ours, ours.issue({ uris: ['spiffe://ours/edge'] })), 'garbage');
    both.sendBytes(firstReport('r-1'));
    await both.next();
    expect(world.peers).to.deep.equal([
      { kind: 'token', namespace, serviceAccount: 'envoy' },
      { kind: 'certificate', uris: ['spiffe://ours/edge'], dnsNames: [] },
    ]);
    const bad = world.open(peerCredentials(ours, others.issue()), await newToken('envoy'));
    bad.sendBytes(firstReport('r-2'));
    expect((await bad.ended).code).to.equal(status.PERMISSION_DENIED);
    expect((await attempt(undefined)).got).to.match(/^UNAUTHENTICATED: /);
  });

  /** A token of the API server's own key with its claims as they are, but for these; `exp` in seconds from now. */
  async function signed(change: { readonly exp: number }): Promise<string> {
    const real = await newToken('envoy');
    const [head = '', payload = ''] = real.split('.');
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
    const exp = Math.floor(Date.now() / 1000) + change.exp;
    const body = Buffer.from(JSON.stringify({ ...claims, exp, iat: exp - 3600, nbf: exp - 3600 }));
    const text = `${head}.${body.toString('base64url')}`;
    const key = createPrivateKey(await readFile(keyFileOf(controlPlane())));
    const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
    return `${text}.${signature.toString('base64url')}`;
  }

  /** The token of a ServiceAccount that is gone, also for the API server, which knows an answer for 10 s. */
  async function ofDeleted(): Promise<string> {
    const token = await newToken('gone');
    await controlPlane().request('DELETE', `/api/v1/namespaces/${namespace}/serviceaccounts/gone`);
    const resource = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
    await eventually(
      'the API server refuses it',
      async () => !(await reviewToken(resource, AUDIENCE, token)).authenticated,
      DEADLINE_MS,
    );
    return token;
  }

  function expectNoToken(token: string | undefined): void {
    if (token === undefined) return;
    const said = JSON.stringify(world.logged);
    for (const part of token.split('.')) expect(said).to.not.contain(part);
  }
});

describe('an API server that cannot review a token', () => {
  for (const { what, answer, says } of [
    { what: 'is out of order', answer: { status: 503, body: 'TOKEN' }, says: '503' },
    { what: 'forbids it', answer: { status: 403, body: 'TOKEN' }, says: '403' },
    {
      what: 'gives it as its reason',
      answer: { status: 403, body: '{"kind":"Status","apiVersion":"v1","reason":TOKEN,"code":403}' },
      says: '403 rejected',
    },
    {
      what: 'answers nonsense that repeats it',
      answer: { status: 200, body: '{"token": TOKEN' },
      says: 'unexpected_response',
    },
  ]) {
    it(`because it ${what}: the stream ends with UNAVAILABLE, and no line holds the token`, async () => {
      const api = await startScriptedApiServer();
      const client = createApiClient({
        connection: api.connection(),
        clock: systemClock,
        userAgent: 'test/1',
        connections: 1,
      });
      const resource = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
      const world = await startTestServer({
        auth: {
          mode: 'token',
          tls: new TlsAcceptor(serverMaterial(ours), 'none'),
          audience: AUDIENCE,
          reviewToken: (text) => reviewToken(resource, AUDIENCE, text),
        },
      });
      try {
        const claims = Buffer.from(JSON.stringify({ aud: AUDIENCE })).toString('base64url');
        const token = `eyJhbGciOiJSUzI1NiJ9.${claims}.c2VjcmV0`;
        const stream = world.open(peerCredentials(ours), token);
        stream.sendBytes(firstReport('r-0'));
        const request = await api.next();
        expect(JSON.parse(request.body)).to.deep.include({ spec: { token, audiences: [AUDIENCE] } });
        request.respond({ ...answer, headers: {}, body: answer.body.replace('TOKEN', `"${token}"`) });
        expect(await stream.ended).to.deep.equal({
          code: status.UNAVAILABLE,
          details: 'token review failed',
        });
        const said = JSON.stringify(world.logged);
        expect(said).to.contain('failed to review tokens').and.contain(says);
        for (const part of token.split('.')) expect(said).to.not.contain(part);
      } finally {
        await world.stop();
        await client.close();
        await api.close();
      }
    });
  }
});

function keyFileOf({ folder }: ControlPlaneClient): string {
  return join(folder, 'service-account.key');
}

/** With an audience that the API server has not signed. */
function forged(token: string): string {
  const [head = '', payload = '', signature = ''] = token.split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
  const body = Buffer.from(JSON.stringify({ ...claims, aud: [AUDIENCE] })).toString('base64url');
  return `${head}.${body}.${signature}`;
}

function resigned(token: string): string {
  const [head, payload] = token.split('.');
  const signature = createHmac('sha256', 'mine').update(`${head}.${payload}`).digest('base64url');
  return `${head}.${payload}.${signature}`;
}
