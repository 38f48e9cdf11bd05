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
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { startScriptedApiServer } from '../support/scripted-api-server.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

const DEADLINE_MS = 60_000;
const AUDIENCE = 'reverse-tunnel-operator';
/** The minimum that the API server accepts. */
const TOKEN_SECONDS = 600;

const ours = createCertificateAuthority('ours');
const others = createCertificateAuthority('others');

describe('a ServiceAccount token on the reporting port', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let client: ApiClient;
  let fixture: TestServer;
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
    fixture = await startTestServer({
      auth: {
        mode,
        tls,
        audience: AUDIENCE,
        reviewToken: (token) => reviewToken(resource, AUDIENCE, token),
      },
      clock,
    });
  }
  afterEach(() => fixture.stop());

  async function newToken(account: string, audience = AUDIENCE): Promise<string> {
    const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
    await controlPlane().request('POST', accounts, { metadata: { name: account } });
    const { status: code, body } = await controlPlane().request('POST', `${accounts}/${account}/token`, {
      spec: { audiences: [audience], expirationSeconds: TOKEN_SECONDS },
    });
    expect(code).to.equal(201);
    return (body as { status: { token: string } }).status.token;
  }

  /** Sends one report; returns `ACK` or the status, and the number of reports that were decoded. */
  async function attempt(token: string | undefined): Promise<{ outcome: string; decoded: number }> {
    let decoded = 0;
    onDecodeStart(0, () => (decoded += 1));
    const stream = fixture.open(peerCredentials(ours), token);
    stream.sendBytes(firstReport('r-0'));
    const end = stream.ended.then(({ code, details }) => `${status[code]}: ${details}`);
    const outcome = await Promise.race([
      stream.next().then(
        () => 'ACK',
        () => end,
      ),
      end,
    ]);
    return { outcome, decoded };
  }

  it('authenticates a stream as its ServiceAccount', async () => {
    await serve();
    expect(await attempt(await newToken('envoy'))).to.deep.equal({ outcome: 'ACK', decoded: 1 });
    expect(fixture.peers).to.deep.equal([{ kind: 'token', namespace, serviceAccount: 'envoy' }]);
    expect(reviews).to.equal(1);
  });

  it('is reviewed once for 50 concurrent streams', async () => {
    await serve();
    const token = await newToken('envoy');
    const streams = Array.from({ length: 50 }, (_, i) => {
      const stream = fixture.open(peerCredentials(ours), token);
      stream.sendBytes(firstReport(`r-${i}`));
      return stream;
    });
    await Promise.all(streams.map((stream) => stream.next()));
    expect(fixture.peers).to.have.length(50);
    expect(reviews).to.equal(1);
  });

  for (const { token: description, make, rejectedAs, status: expected, reviewed } of [
    {
      token: 'no token',
      make: async () => undefined,
      rejectedAs: 'no_credential',
      status: /^UNAUTHENTICATED: .*missing credential/,
      reviewed: 0,
    },
    {
      token: 'garbage',
      make: async () => 'garbage',
      rejectedAs: 'malformed_token',
      status: /^UNAUTHENTICATED: .*not a ServiceAccount token$/,
      reviewed: 0,
    },
    {
      token: 'one for the audience of the API server',
      make: () => newToken('envoy', 'https://kubernetes.default.svc'),
      rejectedAs: 'token_audience',
      status: /^UNAUTHENTICATED: .*another audience$/,
      reviewed: 0,
    },
    {
      token: 'an expired one',
      make: () => signed({ exp: -60 }),
      rejectedAs: 'token_expired',
      status: /^UNAUTHENTICATED: .*has expired$/,
      reviewed: 0,
    },
    {
      token: 'one for another audience with a forged audience claim',
      make: async () => forged(await newToken('envoy', 'others')),
      rejectedAs: 'token_rejected',
      status: /^UNAUTHENTICATED: .*token rejected by the API server/,
      reviewed: 1,
    },
    {
      token: 'one with another signature',
      make: async () => resigned(await newToken('envoy')),
      rejectedAs: 'token_rejected',
      status: /^UNAUTHENTICATED: .*token rejected by the API server/,
      reviewed: 1,
    },
    {
      token: 'one of a user that is not a ServiceAccount',
      make: async () => controlPlane().adminToken,
      rejectedAs: 'malformed_token',
      status: /^UNAUTHENTICATED: /,
      reviewed: 0,
    },
    {
      token: 'one of a deleted ServiceAccount',
      make: () => ofDeleted(),
      rejectedAs: 'token_rejected',
      status: /^UNAUTHENTICATED: .*token rejected by the API server/,
      reviewed: 1,
    },
  ]) {
    it(`rejects ${description} without decoding the report or logging the token`, async function () {
      this.timeout(2 * DEADLINE_MS);
      const token = await make();
      await serve();
      const { outcome, decoded } = await attempt(token);
      expect(outcome).to.match(expected);
      expect({ decoded, events: fixture.connectionEvents, reviews }).to.deep.equal({
        decoded: 0,
        events: [],
        reviews: reviewed,
      });
      expect(await fixture.count('streamsRejected', rejectedAs)).to.equal(1);
      expect(fixture.logged.filter((line) => line['reason'] === rejectedAs)).to.have.length(1);
      expectNoToken(token);
      // Shows that the same hook notices a report that is accepted.
      expect(await attempt(await newToken('good'))).to.deep.equal({ outcome: 'ACK', decoded: 1 });
    });
  }

  it('is rejected by the API server after its expiry, even if the local clock is behind', async () => {
    await serve('token', { ...systemClock, wallMs: () => Date.now() - 3_600_000 });
    const { outcome, decoded } = await attempt(await signed({ exp: -60 }));
    expect(outcome).to.match(/^UNAUTHENTICATED: .*token rejected by the API server/);
    expect({ decoded, reviews }).to.deep.equal({ decoded: 0, reviews: 1 });
  });

  it('closes its stream at exactly its expiry', async () => {
    const token = await newToken('envoy');
    const { exp } = claimsOf(token) as { exp: number };
    // It expires by the clock of the server only.
    const clock = new FakeClock(exp * 1000 - 10_000);
    await serve('token', clock);
    const stream = fixture.open(peerCredentials(ours), token);
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    clock.advance(9_999);
    stream.send({ nonce: 2 });
    await stream.next();
    clock.advance(1);
    expect(await stream.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'credential expired; reconnect with a new one',
    });
    expect(await fixture.count('streamsClosed', 'credential_expired')).to.equal(1);
  });

  it('is used in mode `mtls-or-token` if there is no certificate; an invalid certificate is rejected', async () => {
    await serve('mtls-or-token');
    expect((await attempt(await newToken('envoy'))).outcome).to.equal('ACK');
    const both = fixture.open(peerCredentials(ours, ours.issue({ uris: ['spiffe://ours/edge'] })), 'garbage');
    both.sendBytes(firstReport('r-1'));
    await both.next();
    expect(fixture.peers).to.deep.equal([
      { kind: 'token', namespace, serviceAccount: 'envoy' },
      { kind: 'certificate', uris: ['spiffe://ours/edge'], dnsNames: [] },
    ]);
    const invalid = fixture.open(peerCredentials(ours, others.issue()), await newToken('envoy'));
    invalid.sendBytes(firstReport('r-2'));
    expect((await invalid.ended).code).to.equal(status.PERMISSION_DENIED);
    expect((await attempt(undefined)).outcome).to.match(/^UNAUTHENTICATED: /);
  });

  /** Returns a token signed with the API server's key, with its claims except for `exp`, in seconds from now. */
  async function signed(change: { readonly exp: number }): Promise<string> {
    const real = await newToken('envoy');
    const [head = ''] = real.split('.');
    const claims = claimsOf(real);
    const exp = Math.floor(Date.now() / 1000) + change.exp;
    const body = Buffer.from(JSON.stringify({ ...claims, exp, iat: exp - 3600, nbf: exp - 3600 }));
    const text = `${head}.${body.toString('base64url')}`;
    const key = createPrivateKey(await readFile(keyFileOf(controlPlane())));
    const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
    return `${text}.${signature.toString('base64url')}`;
  }

  /** Returns the token of a deleted ServiceAccount, once the API server's cache of 10 s has expired. */
  async function ofDeleted(): Promise<string> {
    const token = await newToken('gone');
    await controlPlane().request('DELETE', `/api/v1/namespaces/${namespace}/serviceaccounts/gone`);
    const resource = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
    await eventually(
      'the API server rejects the token',
      async () => !(await reviewToken(resource, AUDIENCE, token)).authenticated,
      DEADLINE_MS,
    );
    return token;
  }

  function expectNoToken(token: string | undefined): void {
    if (token === undefined) return;
    const log = JSON.stringify(fixture.logged);
    for (const part of token.split('.')) expect(log).to.not.contain(part);
  }
});

describe('a failed token review', () => {
  for (const { failure, answer, logged } of [
    { failure: 'is unavailable', answer: { status: 503, body: 'TOKEN' }, logged: '503' },
    { failure: 'forbids it', answer: { status: 403, body: 'TOKEN' }, logged: '403' },
    {
      failure: 'repeats the token as its reason',
      answer: { status: 403, body: '{"kind":"Status","apiVersion":"v1","reason":TOKEN,"code":403}' },
      logged: '403 rejected',
    },
    {
      failure: 'answers with malformed JSON that repeats the token',
      answer: { status: 200, body: '{"token": TOKEN' },
      logged: 'unexpected_response',
    },
  ]) {
    it(`rejects the stream with UNAVAILABLE without logging the token if the API server ${failure}`, async () => {
      const api = await startScriptedApiServer();
      const client = createApiClient({
        connection: api.connection(),
        clock: systemClock,
        userAgent: 'test/1',
        connections: 1,
      });
      const resource = client.resource<TokenReviewObject>(TOKEN_REVIEW_RESOURCE);
      const fixture = await startTestServer({
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
        const stream = fixture.open(peerCredentials(ours), token);
        stream.sendBytes(firstReport('r-0'));
        const request = await api.next();
        expect(JSON.parse(request.body)).to.deep.include({ spec: { token, audiences: [AUDIENCE] } });
        request.respond({ ...answer, headers: {}, body: answer.body.replace('TOKEN', `"${token}"`) });
        expect(await stream.ended).to.deep.equal({
          code: status.UNAVAILABLE,
          details: 'token review failed',
        });
        const log = JSON.stringify(fixture.logged);
        expect(log).to.contain('failed to review tokens').and.contain(logged);
        for (const part of token.split('.')) expect(log).to.not.contain(part);
      } finally {
        await fixture.stop();
        await client.close();
        await api.close();
      }
    });
  }
});

function keyFileOf({ folder }: ControlPlaneClient): string {
  return join(folder, 'service-account.key');
}

function claimsOf(token: string): Record<string, unknown> {
  const [, payload = ''] = token.split('.');
  return JSON.parse(Buffer.from(payload, 'base64url').toString()) as Record<string, unknown>;
}

/** Returns the token with an audience that the API server has not signed. */
function forged(token: string): string {
  const [head = '', , signature = ''] = token.split('.');
  const body = Buffer.from(JSON.stringify({ ...claimsOf(token), aud: [AUDIENCE] })).toString('base64url');
  return `${head}.${body}.${signature}`;
}

function resigned(token: string): string {
  const [head, payload] = token.split('.');
  const signature = createHmac('sha256', 'mine').update(`${head}.${payload}`).digest('base64url');
  return `${head}.${payload}.${signature}`;
}
