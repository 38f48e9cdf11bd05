import { execFileSync } from 'node:child_process';
import { createServer, connect, type AddressInfo } from 'node:net';
import { expect } from 'chai';
import type { ApiObject, ResourceClient } from '../../src/k8s/resource-client.ts';
import { createApiClient, type ApiClient, type RequestSample } from '../../src/k8s/client.ts';
import type { Credentials } from '../../src/k8s/credentials.ts';
import { expectApiError } from '../support/expect-api-error.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { startScriptedApiServer, type ScriptedApiServer } from '../support/scripted-api-server.ts';
import * as answers from '../support/recorded-responses.ts';

const TUNNELS = {
  group: 'reverse-tunnel.io',
  version: 'v1alpha1',
  plural: 'reversetunnels',
  namespace: 'default',
};
const COLLECTION = '/apis/reverse-tunnel.io/v1alpha1/namespaces/default/reversetunnels';

describe('API client', () => {
  let server: ScriptedApiServer;
  let clock: FakeClock;
  let client: ApiClient;
  let tunnels: ResourceClient<ApiObject>;
  let samples: RequestSample[];
  let credentials: Credentials;
  let renewals: number;
  let renew: () => Promise<void>;

  beforeEach(async () => {
    server = await startScriptedApiServer();
    clock = new FakeClock();
    samples = [];
    credentials = { authorization: 'Bearer first' };
    renewals = 0;
    renew = () => {
      renewals += 1;
      credentials = { authorization: 'Bearer second' };
      return Promise.resolve();
    };
    client = createApiClient({
      connection: server.connection({ current: () => credentials, refresh: () => renew() }),
      clock,
      userAgent: 'reverse-tunnel-operator/1.2.3',
      connections: 3,
      onRequest: (sample) => samples.push(sample),
    });
    tunnels = client.resource<ApiObject>(TUNNELS);
  });

  afterEach(async () => {
    await client.close();
    await server.close();
    expect(clock.pendingTimersMs, 'pending timers').to.deep.equal([]);
  });

  it('closes idle connections after a call without a response', async () => {
    const calls = ['a', 'b', 'c'].map((name) => tunnels.get(name));
    for (const name of ['a', 'b', 'c']) (await server.next()).respond(answers.okResponse(name, '100'));
    await Promise.all(calls);
    expect(client.connectionsOpened()).to.equal(3);

    // A middlebox has lost the state of all connections: they are neither reset nor answered.
    const unanswered = expectApiError(tunnels.get('a'));
    await server.next();
    clock.advance(10_000);
    expect(await unanswered).to.include({ kind: 'unavailable', status: undefined });

    const next = [tunnels.get('a'), tunnels.get('b')];
    for (const name of ['a', 'b']) (await server.next()).respond(answers.okResponse(name, '100'));
    await Promise.all(next);
    expect(client.connectionsOpened(), 'each on a new connection').to.equal(5);
    await eventually('the idle connections to close', () => server.openConnections === 2);
  });

  it('creates an object with a POST and the manager name for managedFields', async () => {
    const call = tunnels.create({
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name: 'a' },
    });
    const request = await server.next();
    expect(request).to.include({
      method: 'POST',
      path: COLLECTION,
      body: '{"apiVersion":"reverse-tunnel.io/v1alpha1","kind":"ReverseTunnel","metadata":{"name":"a"}}',
    });
    expect(request.headers).to.include({
      'user-agent': 'reverse-tunnel-operator/1.2.3',
      authorization: 'Bearer first',
      accept: 'application/json',
      'content-type': 'application/json',
    });
    request.respond(answers.createdResponse('a', '205'));
    expect((await call).metadata).to.include({ name: 'a', resourceVersion: '205', uid: 'uid-a' });
    expect(samples).to.deep.equal([{ verb: 'create', code: '201' }]);
  });

  it('does not let the API server look for unknown fields in what it writes', async () => {
    const writes = [
      () => tunnels.create({ metadata: { name: 'a' } }),
      () => tunnels.patch('a', {}),
      () => tunnels.patchStatus('a', {}),
    ];
    for (const write of writes) {
      const call = write();
      const request = await server.next();
      expect(request.query.get('fieldValidation'), request.method).to.equal('Ignore');
      request.respond(answers.okResponse('a', '6'));
      await call;
    }
  });

  it('patches an object or its status with a merge patch', async () => {
    const patch = { metadata: { resourceVersion: '5' }, spec: { createdAt: null } };
    const onMain = tunnels.patch('a', patch);
    const main = await server.next();
    expect(main).to.include({ method: 'PATCH', path: `${COLLECTION}/a`, body: JSON.stringify(patch) });
    expect(main.headers['content-type']).to.equal('application/merge-patch+json');
    main.respond(answers.okResponse('a', '6'));
    expect((await onMain).metadata.resourceVersion).to.equal('6');

    const onStatus = tunnels.patchStatus('a', { status: { state: 'Unknown' } });
    const status = await server.next();
    expect(status).to.include({ method: 'PATCH', path: `${COLLECTION}/a/status` });
    status.respond(answers.okResponse('a', '7'));
    await onStatus;
  });

  it('deletes with both preconditions and distinguishes a deleted object from one that waits for finalizers', async () => {
    const gone = tunnels.delete('a', { uid: 'uid-a', resourceVersion: '5' });
    const first = await server.next();
    expect(first).to.include({ method: 'DELETE', path: `${COLLECTION}/a` });
    expect(JSON.parse(first.body)).to.deep.include({ preconditions: { uid: 'uid-a', resourceVersion: '5' } });
    first.respond(answers.DELETED);
    expect(await gone).to.equal(undefined);

    const held = tunnels.delete('a', { uid: 'uid-a', resourceVersion: '5' });
    (await server.next()).respond(answers.okResponse('a', '9'));
    expect((await held)?.metadata.resourceVersion).to.equal('9');
  });

  it('keeps connections open after deletes, which have a body', async () => {
    for (let i = 0; i < 12; i += 1) {
      const call = tunnels.delete('a', { uid: 'u', resourceVersion: '5' });
      (await server.next()).respond(answers.DELETED);
      await call;
    }
    expect(client.connectionsOpened()).to.be.at.most(3);
  });

  it('reads a path of the API server that is not a resource', async () => {
    const call = client.getRaw<{ gitVersion: string }>('/version');
    const request = await server.next();
    expect(request).to.include({ method: 'GET', path: '/version' });
    request.respond({ status: 200, headers: {}, body: '{"gitVersion":"v1.37.2"}' });
    expect(await call).to.deep.equal({ gitVersion: 'v1.37.2' });

    const page = expectApiError(client.getRaw('/version'));
    (await server.next()).respond({ status: 200, headers: {}, body: '<html>log in</html>' });
    expect((await page).message).to.equal(
      'get /version: unexpected response (not from an API server?): <html>log in</html>',
    );

    const missing = expectApiError(client.getRaw('/openapi/v3/apis/reverse-tunnel.io/v1alpha1'));
    (await server.next()).respond(answers.CRD_MISSING);
    expect(await missing).to.include({ status: 404, kind: 'no_kind_match' });
  });

  it('lists a page with all given parameters', async () => {
    const call = tunnels.list({
      limit: 2,
      continueToken: 'c/1=',
      fieldSelector: 'metadata.name=a',
    });
    const request = await server.next();
    expect(request.path).to.equal(COLLECTION);
    expect(Object.fromEntries(request.query)).to.include({
      limit: '2',
      continue: 'c/1=',
      fieldSelector: 'metadata.name=a',
    });
    expect(request.query.has('resourceVersion'), 'consistent with every write answered before').to.equal(
      false,
    );
    request.respond(answers.listResponse('70', [answers.tunnelObject('a', '5')], 'next'));
    const page = await call;
    expect(page).to.include({ resourceVersion: '70', continueToken: 'next' });
    expect(page.items.map(({ metadata }) => metadata.name)).to.deep.equal(['a']);
  });

  it('builds the paths of cluster-scoped resources and the core group, also behind a gateway', async () => {
    const reviews = client.resource({
      group: 'authentication.k8s.io',
      version: 'v1',
      plural: 'tokenreviews',
    });
    const review = reviews.create({});
    const first = await server.next();
    expect(first.path).to.equal('/apis/authentication.k8s.io/v1/tokenreviews');
    first.respond(answers.createdResponse('a', '1'));
    await review;

    const behind = createApiClient({
      connection: { ...server.connection(), server: new URL('/k8s/clusters/c-1/', server.url) },
      clock,
      userAgent: 'test/1',
      connections: 1,
    });
    const get = behind.resource({ group: '', version: 'v1', plural: 'pods', namespace: 'a b' }).get('x/y');
    const second = await server.next();
    expect(second.path).to.equal('/k8s/clusters/c-1/api/v1/namespaces/a%20b/pods/x%2Fy');
    second.respond(answers.okResponse('a', '1'));
    await get;
    await behind.close();
  });

  it('rejects with the kind of the response and names verb, resource and object', async () => {
    const call = expectApiError(tunnels.create({ metadata: { name: 'a' } }));
    (await server.next()).respond(answers.ALREADY_EXISTS);
    const error = await call;
    expect(error.kind).to.equal('already_exists');
    expect(error.message).to.contain(
      'create reversetunnels.reverse-tunnel.io in default a: 409 AlreadyExists',
    );
    expect(samples.map(({ code }) => code)).to.deep.equal(['409']);
  });

  it('times out at its deadline and gives the API server an earlier one', async () => {
    const call = expectApiError(tunnels.patch('a', {}, { timeoutMs: 6_000 }));
    const request = await server.next();
    expect(request.query.get('timeout')).to.equal('4000ms');
    clock.advance(5_999);
    expect(samples).to.deep.equal([]);
    clock.advance(1);
    const error = await call;
    expect(error).to.include({ kind: 'unavailable', status: undefined });
    expect(error.message).to.equal(
      'patch reversetunnels.reverse-tunnel.io in default a: no response within 6 s',
    );
    expect(samples).to.deep.equal([{ verb: 'patch', code: '<error>' }]);
  });

  it('never sends a call that timed out while it waited for a connection', async () => {
    const slow = [0, 1, 2].map((i) => tunnels.get(`slow-${i}`));
    const requests = [await server.next(), await server.next(), await server.next()];
    const queued = expectApiError(tunnels.create({ metadata: { name: 'late' } }, { timeoutMs: 1_000 }));
    clock.advance(1_000);
    expect((await queued).kind).to.equal('unavailable');
    for (const request of requests) request.respond(answers.okResponse('a', '5'));
    await Promise.all(slow);
    const next = tunnels.get('after');
    const request = await server.next();
    expect(request.path).to.equal(`${COLLECTION}/after`);
    request.respond(answers.okResponse('a', '5'));
    await next;
    expect(server.count).to.equal(4);
  });

  it('cancels a call when its signal is aborted, before or after it is sent', async () => {
    const abort = new AbortController();
    const waiting = expectApiError(tunnels.get('a', { signal: abort.signal }));
    await server.next();
    abort.abort();
    expect((await waiting).kind).to.equal('cancelled');
    expect((await expectApiError(tunnels.get('b', { signal: abort.signal }))).kind).to.equal('cancelled');
    expect(server.count).to.equal(1);
  });

  it('renews rejected credentials and retries once', async () => {
    const call = tunnels.get('a');
    (await server.next()).respond(answers.UNAUTHORIZED);
    const again = await server.next();
    expect(again.headers.authorization).to.equal('Bearer second');
    again.respond(answers.okResponse('a', '5'));
    expect((await call).metadata.name).to.equal('a');
    expect(samples.map(({ code }) => code)).to.deep.equal(['401', '200']);
    expect(renewals).to.equal(1);
  });

  it('reports unauthorized if renewed credentials are rejected too or cannot be loaded', async () => {
    const call = expectApiError(tunnels.get('a'));
    (await server.next()).respond(answers.UNAUTHORIZED);
    (await server.next()).respond(answers.UNAUTHORIZED);
    expect((await call).kind).to.equal('unauthorized');

    renew = () => Promise.reject(new Error('kubeconfig x: exec plugin aws: not found'));
    const without = expectApiError(tunnels.get('a'));
    (await server.next()).respond(answers.UNAUTHORIZED);
    const error = await without;
    expect(error.kind).to.equal('unauthorized');
    expect(error.message).to.contain('cannot reload credentials: kubeconfig x: exec plugin aws: not found');
    expect(server.count, 'tries').to.equal(3);
  });

  it('reports an unexpected response if a 200 is not JSON', async () => {
    for (const [body, send] of [
      ['<html><body>Sign in</body></html>', () => tunnels.get('a')],
      ['{"kind":"Reverse', () => tunnels.get('a')],
      ['null', () => tunnels.get('a')],
      ['{"items":[]}', () => tunnels.list()],
      ['{"metadata":{"resourceVersion":"5"}}', () => tunnels.list()],
    ] as const) {
      const call = expectApiError(send());
      (await server.next()).respond({ status: 200, headers: {}, body });
      expect((await call).kind, body).to.equal('unexpected_response');
    }
  });

  it('classifies a broken connection or an unreachable API server as unavailable', async () => {
    const broken = expectApiError(tunnels.create({ metadata: { name: 'a' } }));
    (await server.next()).reset();
    expect((await broken).kind).to.equal('unavailable');
    await server.close();
    const absent = await expectApiError(tunnels.get('a'));
    expect(absent.kind).to.equal('unavailable');
    expect(absent.message).to.contain(`ECONNREFUSED 127.0.0.1:${server.url.port}`);
    expect(samples.map(({ code }) => code)).to.deep.equal(['<error>', '<error>']);
  });

  it('reuses connections and does not exceed their limit', async () => {
    const calls = [...Array(20).keys()].map((i) => tunnels.get(`n${i}`));
    for (let i = 0; i < 20; i += 1) {
      const request = await server.next();
      expect(server.openConnections).to.be.at.most(3);
      request.respond(answers.okResponse('a', '5'));
    }
    await Promise.all(calls);
    expect(client.connectionsOpened()).to.equal(3);
  });

  it('watches on a separate connection and passes chunks on as they arrive', async () => {
    const busy = [0, 1, 2].map((i) => tunnels.get(`busy-${i}`));
    const requests = [await server.next(), await server.next(), await server.next()];
    const seen: string[] = [];
    let opened = 0;
    const ended = tunnels.watch(
      { resourceVersion: '70', timeoutSeconds: 300 },
      { onOpen: () => (opened += 1), onChunk: (chunk) => seen.push(chunk.toString()) },
    );
    const request = await server.next();
    expect(Object.fromEntries(request.query)).to.deep.equal({
      watch: '1',
      allowWatchBookmarks: 'true',
      resourceVersion: '70',
      timeoutSeconds: '300',
    });
    const watch = request.watch();
    await eventually('the watch to open', () => opened === 1);
    expect(samples.map(({ verb, code }) => `${verb} ${code}`)).to.deep.equal(['watch 200']);
    watch.sendRaw('{"half"');
    await eventually('half a line', () => seen.join('') === '{"half"');
    clock.advance(9_999);
    for (const other of requests) other.respond(answers.okResponse('a', '5'));
    await Promise.all(busy);
    clock.advance(3_600_000);
    watch.sendRaw(':1}\n');
    watch.end();
    await ended;
    expect(seen.join('')).to.equal('{"half":1}\n');
  });

  it('ends a watch with the error of its reader and closes the connection', async () => {
    const ended = tunnels.watch(
      { resourceVersion: '70', timeoutSeconds: 300 },
      {
        onOpen: () => undefined,
        onChunk: () => {
          throw new RangeError('no room');
        },
      },
    );
    const watch = (await server.next()).watch();
    watch.send('{}');
    let thrown: unknown;
    await ended.catch((error: unknown) => {
      thrown = error;
    });
    expect(thrown).to.be.instanceOf(RangeError);
    await eventually('the watch to close', () => watch.closed);
  });

  it('rejects a watch with the kind of the response', async () => {
    const call = expectApiError(
      tunnels.watch(
        { resourceVersion: '70', timeoutSeconds: 300 },
        { onOpen: () => undefined, onChunk: () => undefined },
      ),
    );
    (await server.next()).respond(answers.TOO_MANY_REQUESTS);
    expect(await call).to.include({ kind: 'throttled', retryAfterMs: 1_000 });
  });

  it('cancels everything when it is closed and does nothing afterwards', async () => {
    const call = expectApiError(tunnels.get('a'));
    const watch = expectApiError(
      tunnels.watch(
        { resourceVersion: '7', timeoutSeconds: 300 },
        { onOpen: () => undefined, onChunk: () => undefined },
      ),
    );
    await server.next();
    (await server.next()).watch();
    await client.close();
    expect((await call).kind).to.equal('cancelled');
    expect((await watch).kind).to.equal('cancelled');
    expect((await expectApiError(tunnels.get('b'))).kind).to.equal('cancelled');
    await eventually('all connections to close', () => server.openConnections === 0);
    expect(server.count).to.equal(2);
  });

  it('connects through the proxy of the kubeconfig', async () => {
    const targets: string[] = [];
    const proxy = createServer((socket) => {
      socket.once('data', (head) => {
        // A plain HTTP proxy receives a request for an absolute URL.
        const [line = ''] = head.toString('latin1').split('\r\n');
        targets.push(line.split(' ')[1] ?? '');
        const upstream = connect(Number(server.url.port), '127.0.0.1');
        upstream.write(head.toString('latin1').replace(server.url.origin, ''), 'latin1');
        socket.pipe(upstream).pipe(socket);
        socket.on('error', () => upstream.destroy());
        upstream.on('error', () => socket.destroy());
      });
    });
    await new Promise<void>((resolve) => {
      proxy.listen(0, '127.0.0.1', resolve);
    });
    const { port } = proxy.address() as AddressInfo;
    const proxied = createApiClient({
      connection: { ...server.connection(), proxyUrl: `http://127.0.0.1:${port}` },
      clock,
      userAgent: 'test/1',
      connections: 1,
    });
    const call = proxied.resource<ApiObject>(TUNNELS).get('a');
    (await server.next()).respond(answers.okResponse('a', '5'));
    expect((await call).metadata.name).to.equal('a');
    expect(targets).to.deep.equal([`${server.url.origin}${COLLECTION}/a?timeout=8000ms`]);
    await proxied.close();
    proxy.close();
  });

  it('loads nothing of undici without a proxy', () => {
    // A separate process, because another test may have loaded it.
    const script = `
      await import(${JSON.stringify(import.meta.resolve('../../src/k8s/client.ts'))});
      const { createRequire } = await import('node:module');
      const loaded = Object.keys(createRequire(${JSON.stringify(import.meta.url)}).cache);
      process.stdout.write(JSON.stringify(loaded.filter((file) => file.includes('undici'))));`;
    const loaded: string[] = JSON.parse(
      execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }),
    );
    expect(loaded).to.deep.equal([]);
  });
});
