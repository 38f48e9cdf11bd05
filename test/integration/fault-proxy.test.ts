import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { expect } from 'chai';
import { openFaultProxy, type FaultProxy } from '../faults/real/fault-proxy.ts';
import { eventually } from '../support/eventually.ts';

describe('a TCP proxy that fails as networks do', () => {
  let target: Server;
  /** Connections that the target has, and what it has read. */
  let served: { readonly socket: Socket; text: string; ended: boolean }[];
  let proxy: FaultProxy;
  let clients: Socket[];

  beforeEach(async () => {
    served = [];
    clients = [];
    target = createServer((socket) => {
      const one = { socket, text: '', ended: false };
      served.push(one);
      socket.setEncoding('utf8').on('data', (text: string) => {
        one.text += text;
        socket.write(text.toUpperCase());
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        one.ended = true;
      });
    });
    await new Promise<void>((resolve) => {
      target.listen(0, '127.0.0.1', resolve);
    });
    proxy = await openFaultProxy(`127.0.0.1:${(target.address() as AddressInfo).port}`);
  });

  afterEach(async () => {
    for (const client of clients) client.destroy();
    await proxy.close();
    for (const { socket } of served) socket.destroy();
    await new Promise<void>((resolve) => {
      target.close(() => resolve());
    });
  });

  function open(): { readonly socket: Socket; text: string; ended: boolean } {
    const [host, port] = proxy.address.split(':');
    const one = { socket: connect(Number(port), host), text: '', ended: false };
    clients.push(one.socket);
    one.socket.setEncoding('utf8').on('data', (text: string) => {
      one.text += text;
    });
    one.socket.on('error', () => {});
    one.socket.on('close', () => {
      one.ended = true;
    });
    return one;
  }

  async function openAndTalk(): Promise<ReturnType<typeof open>> {
    const client = open();
    client.socket.write('a');
    await eventually('an answer', () => client.text === 'A');
    return client;
  }

  it('reset: both ends break, and new connections work', async () => {
    const client = await openAndTalk();
    proxy.reset();
    await eventually('both ended', () => client.ended && served[0]?.ended === true);
    await openAndTalk();
  });

  it('cut: new connections break too, until it passes again', async () => {
    const client = await openAndTalk();
    proxy.cut();
    await eventually('it ended', () => client.ended);
    const next = open();
    await eventually('the next ended', () => next.ended);
    proxy.restore();
    await openAndTalk();
  });

  it('stall: nothing passes and nothing ends; then all of it passes, also what was said meanwhile', async () => {
    const client = await openAndTalk();
    proxy.stall();
    client.socket.write('b');
    const next = open();
    next.socket.write('c');
    await eventually('the next is connected', () => !next.socket.connecting);
    expect([client.text, client.ended, next.text, next.ended, served.length]).to.deep.equal([
      'A',
      false,
      '',
      false,
      1,
    ]);
    proxy.restore();
    await eventually('all is answered', () => client.text === 'AB' && next.text === 'C');
  });

  it('half-open: one end is gone, and the other hears nothing of it', async () => {
    const client = await openAndTalk();
    proxy.halfOpen('clients');
    await eventually('the client ended', () => client.ended);
    served[0]?.socket.write('anybody?');
    await openAndTalk();
    expect(served[0]?.ended).to.equal(false);

    proxy.halfOpen('targets');
    await eventually('the target ended', () => served[1]?.ended === true);
    clients[1]?.write('anybody?');
    await openAndTalk();
    expect(clients[1]?.destroyed).to.equal(false);
  });

  it('slow: all passes, in its time and order', async () => {
    proxy.throttle(20_000);
    const client = open();
    const text = Array.from({ length: 2000 }, (_, i) => `${i},`).join('');
    const startedMs = performance.now();
    client.socket.write(text);
    await eventually('most is answered', () => client.text.length > 0);
    client.socket.write('the end');
    await eventually('all is answered', () => client.text === `${text}THE END`);
    // 9 kB and a bit: what comes behind them waits for their time to be over.
    expect(performance.now() - startedMs).to.be.greaterThan(400);
  });
});
