/** The API client with endless responses, with credentials that are slow to renew, and after it is closed. */
import { expect } from 'chai';
import type { ApiObject, ResourceClient } from '../../src/k8s/resource-client.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import type { Credentials } from '../../src/k8s/credentials.ts';
import { expectApiError } from '../support/expect-api-error.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startScriptedApiServer, type ScriptedApiServer } from '../support/scripted-api-server.ts';
import * as answers from '../support/recorded-responses.ts';

const MIB = Buffer.alloc(1024 * 1024, 'x');
const GET_A = 'get reversetunnels.reverse-tunnel.io in default a';

describe('API client with bad input', () => {
  let server: ScriptedApiServer;
  let clock: FakeClock;
  let client: ApiClient;
  let tunnels: ResourceClient<ApiObject>;
  let current: () => Credentials | Promise<Credentials>;
  let refresh: () => Promise<void>;
  let logged: string[];

  beforeEach(async () => {
    server = await startScriptedApiServer();
    clock = new FakeClock();
    logged = [];
    current = () => ({ authorization: 'Bearer first' });
    refresh = () => Promise.resolve();
    client = createApiClient({
      connection: server.connection({ current: () => current(), refresh: () => refresh() }),
      clock,
      userAgent: 'reverse-tunnel-operator/1.2.3',
      connections: 2,
      log: { info: (fields, message) => logged.push(`${JSON.stringify(fields)} ${message}`) },
    });
    tunnels = client.resource<ApiObject>({
      group: 'reverse-tunnel.io',
      version: 'v1alpha1',
      plural: 'reversetunnels',
      namespace: 'default',
    });
  });

  afterEach(async () => {
    await client.close();
    await server.close();
    expect(clock.pendingTimersMs, 'pending timers').to.deep.equal([]);
  });

  it('aborts an endless response instead of buffering it', async () => {
    const call = expectApiError(tunnels.list());
    const answer = (await server.next()).stream(200);
    while (!answer.closed) await answer.write(MIB);
    expect(await call).to.include({
      kind: 'unexpected_response',
      message: 'list reversetunnels.reverse-tunnel.io in default: response exceeds 128 MiB',
    });
  });

  it('reads the beginning of an endless error response and closes the connection', async () => {
    for (const send of [() => tunnels.get('a'), () => watchOf(tunnels)]) {
      const call = expectApiError(send());
      const answer = (await server.next()).stream(502);
      await answer.write('<h1>Bad Gateway</h1>');
      while (!answer.closed) await answer.write(MIB);
      const error = await call;
      expect(error).to.include({ kind: 'unavailable', status: 502 });
      expect(error.message).to.contain('<h1>Bad Gateway</h1>');
    }
  });

  it('times out when a response begins in time but does not end', async () => {
    const call = expectApiError(tunnels.get('a'));
    const answer = (await server.next()).stream(200);
    await answer.write('{"kind":');
    clock.advance(10_000);
    expect(await call).to.include({
      kind: 'unavailable',
      message: `${GET_A}: no response within 10 s`,
    });
    await eventually('the connection to close', () => answer.closed);
  });

  it('rejects JSON that is not a Kubernetes object', async () => {
    for (const body of ['{}', '{"status":"please log in"}', '[]']) {
      const call = expectApiError(tunnels.create({ metadata: { name: 'a' } }));
      (await server.next()).respond({ status: 200, headers: {}, body });
      const error = await call;
      expect(error.kind, body).to.equal('unexpected_response');
      expect(error.message).to.contain(`unexpected response (not from an API server?): ${body}`);
    }
  });

  it('waits for credentials until the deadline of the call and then sends no request', async () => {
    const plugin = Promise.withResolvers<Credentials>();
    current = () => plugin.promise;
    const call = expectApiError(tunnels.create({ metadata: { name: 'a' } }));
    clock.advance(10_000);
    expect(await call).to.include({
      kind: 'unauthorized',
      message: 'create reversetunnels.reverse-tunnel.io in default a: credentials not available within 10 s',
    });
    plugin.resolve({ authorization: 'Bearer late' });
    current = () => ({ authorization: 'Bearer late' });
    const next = tunnels.get('b');
    const request = await server.next();
    expect(request.method, 'the create is never sent').to.equal('GET');
    request.respond(answers.okResponse('b', '5'));
    await next;
    expect(server.count).to.equal(1);
  });

  it('gives the retry the rest of the deadline and passes it on to the API server', async () => {
    const plugin = Promise.withResolvers<void>();
    refresh = () => plugin.promise;
    const call = expectApiError(tunnels.get('a'));
    const first = await server.next();
    expect(first.query.get('timeout')).to.equal('8000ms');
    first.respond(answers.UNAUTHORIZED);
    await eventually(
      'the 401 to arrive',
      () => clock.pendingTimersMs[0] === 10_000 && clock.pendingTimersMs.length === 1,
    );
    clock.advance(6_000);
    plugin.resolve();
    const second = await server.next();
    expect(second.query.get('timeout')).to.equal('2000ms');
    clock.advance(3_999);
    expect(clock.pendingTimersMs).to.deep.equal([1]);
    clock.advance(1);
    expect(await call).to.include({
      kind: 'unavailable',
      message: `${GET_A}: no response within 4 s`,
    });
  });

  it('waits for renewed credentials until the deadline or the cancellation of the call', async () => {
    refresh = () => new Promise(() => undefined);
    const late = expectApiError(tunnels.get('a'));
    (await server.next()).respond(answers.UNAUTHORIZED);
    await eventually(
      'the 401 to arrive',
      () => server.openConnections === 1 && clock.pendingTimersMs.length === 1,
    );
    await errorOfAborted();
    clock.advance(10_000);
    expect(await late).to.include({
      kind: 'unauthorized',
      message: `${GET_A}: credentials not available within 10 s`,
    });
  });

  /** Cancels another call while it waits for credentials. */
  async function errorOfAborted(): Promise<void> {
    const abort = new AbortController();
    const call = expectApiError(tunnels.get('b', { signal: abort.signal }));
    (await server.next()).respond(answers.UNAUTHORIZED);
    await eventually('a pending call', () => clock.pendingTimersMs.length === 2);
    abort.abort();
    expect((await call).kind).to.equal('cancelled');
  }

  it('opens no connection with new credentials after it is closed', async () => {
    const plugin = Promise.withResolvers<void>();
    refresh = () => plugin.promise;
    const call = expectApiError(tunnels.get('a'));
    (await server.next()).respond(answers.UNAUTHORIZED);
    await eventually('the 401 to arrive', () => clock.pendingTimersMs.length === 1);
    await client.close();
    expect(await call).to.include({ kind: 'cancelled', message: `${GET_A}: client is closed` });
    current = () => ({ authorization: 'Bearer second', serverName: 'another' });
    plugin.resolve();
    expect((await expectApiError(tunnels.get('b'))).kind).to.equal('cancelled');
    expect(client.connectionsOpened()).to.equal(1);
    await eventually('all connections to close', () => server.openConnections === 0);
  });

  it('logs at most once per 30 s that reloaded credentials were accepted', async () => {
    for (let i = 0; i < 3; i += 1) {
      const call = tunnels.get('a');
      (await server.next()).respond(answers.UNAUTHORIZED);
      (await server.next()).respond(answers.okResponse('a', '5'));
      await call;
      clock.advance(15_000);
    }
    const fields = `"errorKind":"unauthorized","action":"${GET_A}","retry":"succeeded"`;
    const message = 'credentials were rejected; reloaded them';
    expect(logged).to.deep.equal([`{${fields}} ${message}`, `{${fields},"suppressed":1} ${message}`]);
  });

  it('reports a token that is invalid in a header as unauthorized, without repeating it', async () => {
    current = () => ({ authorization: 'Bearer se\ncret' });
    const error = await expectApiError(tunnels.get('a'));
    expect(error.kind).to.equal('unauthorized');
    expect(error.message).to.equal(
      `${GET_A}: Invalid character in header content ["authorization"] (ERR_INVALID_CHAR)`,
    );
    expect(server.count).to.equal(0);
  });
});

function watchOf(tunnels: ResourceClient<ApiObject>): Promise<void> {
  return tunnels.watch(
    { resourceVersion: '70', timeoutSeconds: 300 },
    { onOpen: () => undefined, onChunk: () => undefined },
  );
}
