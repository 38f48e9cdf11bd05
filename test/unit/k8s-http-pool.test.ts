import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { mock } from 'node:test';
import { expect } from 'chai';
import type { HttpHandler, RequestController } from '../../src/k8s/http-connection.ts';
import { HttpPool } from '../../src/k8s/http-pool.ts';
import { eventually } from '../support/eventually.ts';

const HEADERS = ['accept', 'application/json'];
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

/** The outcome of a request: the body, or why there is none. */
class Outcome implements HttpHandler {
  controller: RequestController | undefined;
  body = '';
  result: string | undefined;
  isSettled = false;

  onRequestStart(controller: RequestController): void {
    this.controller = controller;
  }

  onResponseStart(): void {}

  onResponseData(_controller: RequestController, chunk: Buffer): void {
    this.body += chunk.toString();
  }

  onResponseEnd(): void {
    this.result = this.body;
  }

  onResponseError(_controller: RequestController | null, error: Error): void {
    this.result = `error: ${error.message}`;
  }
}

describe('pool of HTTP connections', () => {
  let server: Server;
  /** The connections that the server has accepted, oldest first. */
  let accepted: Socket[];
  /** The requests of each connection. */
  let received: string[][];
  let opened: number;
  let pool: HttpPool;

  beforeEach(async () => {
    accepted = [];
    received = [];
    opened = 0;
    server = createServer((socket) => {
      const requests: string[] = [];
      accepted.push(socket);
      received.push(requests);
      socket.on('data', (bytes) => requests.push(bytes.toString()));
      socket.on('error', () => undefined);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    pool = createPool(2);
  });

  afterEach(async () => {
    await pool.destroy();
    for (const socket of accepted) socket.destroy();
    server.close();
  });

  function createPool(connections: number): HttpPool {
    const { port } = server.address() as AddressInfo;
    return new HttpPool({
      server: new URL(`http://127.0.0.1:${port}`),
      tls: {},
      connections,
      onConnect: () => (opened += 1),
    });
  }

  function send(path: string, body: string | null = null, headers = HEADERS): Outcome {
    const outcome = new Outcome();
    pool.dispatch({ method: body === null ? 'GET' : 'POST', path, headers, body }, outcome);
    return outcome;
  }

  /** Waits until the server has received a request, answers it, and returns the connection on which it arrived. */
  async function answer(path: string, response = OK): Promise<number> {
    let index = -1;
    await eventually(`request ${path}`, () => {
      index = received.findIndex((requests) => requests.at(-1)?.includes(` ${path} `) === true);
      return index !== -1;
    });
    accepted[index]?.write(response);
    return index;
  }

  async function resultOf(outcome: Outcome): Promise<string | undefined> {
    await eventually('the end of the request', () => outcome.result !== undefined);
    return outcome.result;
  }

  it('sends a request with its body in bytes, and one connection serves one request after the other', async () => {
    const first = send('/a', '{"ü":1}');
    await answer('/a');
    expect(await resultOf(first)).to.equal('ok');
    const { port } = server.address() as AddressInfo;
    expect(received[0]?.join('')).to.equal(
      `POST /a HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\naccept: application/json\r\ncontent-length: 8\r\n\r\n{"ü":1}`,
    );
    for (const path of ['/b', '/c']) {
      const next = send(path);
      expect(await answer(path)).to.equal(0);
      expect(await resultOf(next)).to.equal('ok');
    }
    expect(opened).to.equal(1);
  });

  it('uses the connection first that was used last', async () => {
    const both = [send('/a'), send('/b')];
    const last = (await answer('/a')) === 0 ? 1 : 0;
    expect(await resultOf(both[0] as Outcome)).to.equal('ok');
    await answer('/b');
    expect(await resultOf(both[1] as Outcome)).to.equal('ok');
    send('/c');
    expect(await answer('/c')).to.equal(last);
  });

  it('lets requests wait in order while all connections are in use', async () => {
    const outcomes = ['/a', '/b', '/c', '/d'].map((path) => send(path));
    for (const path of ['/a', '/b', '/c', '/d']) await answer(path);
    for (const outcome of outcomes) expect(await resultOf(outcome)).to.equal('ok');
    expect(opened).to.equal(2);
  });

  it('never sends a request that was aborted while it waited', async () => {
    pool = createPool(1);
    const first = send('/a');
    await eventually('the first request', () => received[0]?.length === 1);
    const aborted = send('/b');
    aborted.onRequestStart = (controller) => controller.abort(new Error('aborted'));
    const next = send('/c');
    await answer('/a');
    await answer('/c');
    expect(await resultOf(first)).to.equal('ok');
    expect(await resultOf(next)).to.equal('ok');
    expect(received.flat().join('')).not.to.contain('/b');
    expect(opened).to.equal(1);
  });

  it('closes the connection of a request that is aborted, and opens another one for the next', async () => {
    pool = createPool(1);
    const aborted = send('/a');
    const next = send('/b');
    await eventually('the request', () => received[0]?.length === 1);
    aborted.controller?.abort(new Error('aborted'));
    expect(await answer('/b')).to.equal(1);
    expect(await resultOf(next)).to.equal('ok');
    await eventually('the first connection to close', () => accepted[0]?.destroyed === true);
    expect(aborted.result).to.equal(undefined);
  });

  it('does not use a connection again that the server has closed, announced to close, or written to unasked', async () => {
    for (const [response, after] of [
      [OK, (socket: Socket) => socket.end()],
      ['HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok', undefined],
      [`${OK}more`, undefined],
      [OK, (socket: Socket) => socket.write('HTTP/1.1 408 Request Timeout\r\n\r\n')],
    ] as const) {
      const outcome = send('/a');
      const index = await answer('/a', response);
      expect(await resultOf(outcome)).to.equal('ok');
      const socket = accepted[index] as Socket;
      after?.(socket);
      await eventually('the connection to close', () => socket.destroyed);
      received[index] = [];
    }
    expect(opened).to.equal(4);
  });

  it('reads a body that ends with the connection', async () => {
    const outcome = send('/a');
    const index = await answer('/a', 'HTTP/1.1 502 Bad Gateway\r\n\r\n<h1>');
    accepted[index]?.end('Bad Gateway');
    expect(await resultOf(outcome)).to.equal('<h1>Bad Gateway');
  });

  it('fails a request whose response is cut off, reset or not HTTP', async () => {
    for (const [response, after, message] of [
      [
        'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok',
        (socket: Socket) => socket.end(),
        /the server closed the connection/,
      ],
      ['HTTP/1.1 200', (socket: Socket) => socket.end(), /the server closed the connection/],
      ['HTTP/1.1 200', (socket: Socket) => socket.resetAndDestroy(), /ECONNRESET/],
      ['SSH-2.0-OpenSSH_9.6\r\n', undefined, /not an HTTP response: "SSH-2"/],
    ] as const) {
      const outcome = send('/a');
      const index = await answer('/a', response);
      after?.(accepted[index] as Socket);
      expect(await resultOf(outcome)).to.match(message);
      received[index] = [];
    }
  });

  it('notices what arrived on an idle connection while the process was busy', async () => {
    for (const unasked of [undefined, 'HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n']) {
      const before = send('/a');
      const index = await answer('/a');
      expect(await resultOf(before)).to.equal('ok');
      const socket = accepted[index] as Socket;
      // Handed to the kernel at once, and read by the pool only after this tick.
      if (unasked === undefined) socket.end();
      else socket.write(unasked);
      const busyUntilMs = performance.now() + 50;
      while (performance.now() < busyUntilMs);
      const outcome = send('/b');
      received[index] = [];
      expect(await answer('/b'), 'another connection').not.to.equal(index);
      expect(await resultOf(outcome)).to.equal('ok');
    }
  });

  it('opens no connection for requests that no caller waits for anymore, and keeps none of them', async () => {
    const dead = new Outcome();
    dead.isSettled = true;
    pool.dispatch({ method: 'GET', path: '/a', headers: HEADERS, body: null }, dead);
    const inFlight = [send('/b'), send('/c')];
    await eventually('both requests', () => received.flat().length === 2);
    const waiting = Array.from({ length: 10 }, (_, index) => send(`/dead/${index}`));
    for (const outcome of waiting) outcome.isSettled = true;
    for (const { controller } of inFlight) controller?.abort(new Error('aborted'));
    await eventually('the connections to close', () => accepted.every((socket) => socket.destroyed));
    const next = send('/d');
    await answer('/d');
    expect(await resultOf(next)).to.equal('ok');
    expect(opened).to.equal(3);
    expect(received.flat().join('')).not.to.contain('/dead');
  });

  it('fails every waiting request if the server accepts no connections', async () => {
    server.close();
    await once(server, 'close');
    const outcomes = Array.from({ length: 5 }, (_, index) => send(`/${index}`));
    for (const outcome of outcomes) expect(await resultOf(outcome)).to.contain('ECONNREFUSED');
  });

  it('rejects an invalid header without a connection and without its value', async () => {
    const outcome = send('/a', null, ['authorization', 'Bearer se\ncret']);
    expect(outcome.result).to.equal('error: Invalid character in header content ["authorization"]');
    expect(opened).to.equal(0);
  });

  it('finishes its requests when it is closed, and fails them when it is destroyed', async () => {
    const waiting = ['/a', '/b', '/c'].map((path) => send(path));
    const closed = pool.close();
    expect(await resultOf(send('/d'))).to.contain('closed');
    for (const path of ['/a', '/b', '/c']) await answer(path);
    for (const outcome of waiting) expect(await resultOf(outcome)).to.equal('ok');
    await closed;
    await eventually('all connections to close', () => accepted.every((socket) => socket.destroyed));

    pool = createPool(1);
    const failed = [send('/e'), send('/f')];
    await eventually('the request', () => received.at(-1)?.length === 1);
    await pool.destroy();
    for (const outcome of failed) expect(outcome.result).to.contain('closed');
    await eventually('all connections to close', () => accepted.every((socket) => socket.destroyed));
  });

  it('closes connections that have been idle for more than a minute, also after it had none', async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const closed = send('/a');
      await answered(closed, 0, OK);
      accepted[0]?.end();
      await turnsUntil(() => accepted[0]?.destroyed === true);
      await answered(send('/b'), 1, OK);
      for (let second = 0; second < 60; second += 1) mock.timers.tick(1000);
      await answered(send('/c'), 1, OK);
      await turnsUntil(() => {
        mock.timers.tick(1000);
        return accepted[1]?.destroyed === true;
      });
      expect(opened).to.equal(2);
    } finally {
      mock.timers.reset();
    }
  });

  /** Answers the last request of a connection. Without timers, which are mocked. */
  async function answered(outcome: Outcome, index: number, response: string): Promise<void> {
    const before = received[index]?.length ?? 0;
    await turnsUntil(() => (received[index]?.length ?? 0) > before);
    accepted[index]?.write(response);
    await turnsUntil(() => outcome.result !== undefined);
  }

  async function turnsUntil(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise(setImmediate);
  }
});
