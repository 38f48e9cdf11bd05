import { expect } from 'chai';
import type {
  ReportMessage,
  ReportedTunnel,
  ResponseMessage,
  StreamHandlers,
} from '../../src/grpc/report-message.ts';
import {
  createEnvoyClient,
  type ClientEvent,
  type EnvoyClientConfig,
} from '../../src/simulate/envoy-client.ts';
import { FakeClock } from '../support/fake-clock.ts';

const NODE = { cluster: 'edge', id: 'responder-0' };
const INTERVAL_MS = 2000;
const RETRY_MS = 3000;
const MAX_RETRIES = 2;

function tunnel(nodeID: string): ReportedTunnel {
  return {
    name: nodeID,
    tenantID: 'acme',
    clusterID: 'eu-1',
    nodeID,
    createdAt: { seconds: 1, nanos: 5000 },
  };
}

/** A stream, as seen by the server. */
interface FakeStream {
  readonly reports: ReportMessage[];
  readonly handlers: StreamHandlers;
  reset: boolean;
}

/** Creates a client with a fake network, which records reports and responds only if the test sets `respond`. */
function createHarness(config: Partial<EnvoyClientConfig> = {}) {
  const clock = new FakeClock();
  const streams: FakeStream[] = [];
  const events: ClientEvent[] = [];
  const held: ReportedTunnel[] = [];
  const network = {
    fails: false,
    respond: undefined as ((report: ReportMessage) => ResponseMessage) | undefined,
  };
  const client = createEnvoyClient(
    {
      node: NODE,
      sendIntervalMs: INTERVAL_MS,
      connectRetryIntervalMs: RETRY_MS,
      maxRetries: MAX_RETRIES,
      maxBufferCount: 1000,
      nodeOnFirstOnly: false,
      ...config,
    },
    {
      clock,
      openStream(handlers) {
        if (network.fails) return undefined;
        const stream: FakeStream = { reports: [], handlers, reset: false };
        streams.push(stream);
        return {
          send(report) {
            stream.reports.push(report);
            if (network.respond !== undefined) handlers.onResponse(network.respond(report));
          },
          reset() {
            stream.reset = true;
          },
        };
      },
      allTunnels: () => [...held],
      observe: (event) => events.push(event),
    },
  );
  const at = (index: number): FakeStream => {
    const stream = streams[index];
    if (stream === undefined) throw new Error(`no stream ${index}`);
    return stream;
  };
  return {
    clock,
    client,
    held,
    network,
    streams,
    at,
    sent: (index: number) => at(index).reports.map((report) => Number(report.nonce)),
    ack(index: number, nonce: number | bigint, reportIntervalMs?: number) {
      at(index).handlers.onResponse({ requestNonce: BigInt(nonce), reportIntervalMs, error: undefined });
    },
    disconnects: () => events.filter((event) => event.type === 'disconnected').map(({ reason }) => reason),
    count: (type: ClientEvent['type']) => events.filter((event) => event.type === type).length,
    latencies: () => events.flatMap((event) => (event.type === 'acked' ? event.latenciesMs : [])),
  };
}

const ackAll = ({ nonce }: ReportMessage): ResponseMessage => ({
  requestNonce: nonce,
  reportIntervalMs: undefined,
  error: undefined,
});

describe('simulated Envoy client: connect', () => {
  it('immediately sends a full push with nonce 1 in a single message', () => {
    const w = createHarness();
    w.held.push(tunnel('a'), tunnel('b'));
    w.client.start();
    expect(w.at(0).reports).to.deep.equal([
      { node: NODE, added: [tunnel('a'), tunnel('b')], removedNames: [], fullPush: true, nonce: 1n },
    ]);
  });

  it('sends a full push of any size, including an empty one', () => {
    const empty = createHarness();
    empty.client.start();
    expect(empty.at(0).reports).to.have.length(1);
    expect(empty.at(0).reports[0]).to.include({ fullPush: true });

    const full = createHarness({ maxBufferCount: 10 });
    full.held.push(...Array.from({ length: 11 }, (_, i) => tunnel(`n-${i}`)));
    full.client.start();
    expect(full.at(0).reports[0]?.added).to.have.length(11);
  });

  it('retries without limit at the retry interval if no stream can be created', () => {
    const w = createHarness();
    w.network.fails = true;
    w.client.start();
    w.clock.advance(RETRY_MS * 10);
    expect(w.disconnects()).to.deep.equal(Array.from({ length: 11 }, () => 'stream_creation_failed'));
    w.network.fails = false;
    w.clock.advance(RETRY_MS);
    expect(w.sent(0)).to.deep.equal([1]);
  });

  it('ignores updates before the start, as the full push includes them', () => {
    const w = createHarness();
    w.client.receive({ connections: [tunnel('early')], disconnections: [] });
    w.client.start();
    w.ack(0, 1);
    w.clock.advance(INTERVAL_MS);
    expect(w.at(0).reports[1]?.added).to.deep.equal([]);
  });
});

describe('simulated Envoy client: reports', () => {
  it('sends changes with the next report, and an empty report if there are none', () => {
    const w = createHarness();
    w.network.respond = ackAll;
    w.held.push(tunnel('a'));
    w.client.start();
    w.client.receive({ connections: [tunnel('b')], disconnections: [] });
    w.client.receive({ connections: [], disconnections: ['a'] });
    w.clock.advance(INTERVAL_MS);
    w.clock.advance(INTERVAL_MS);
    expect(w.at(0).reports.slice(1)).to.deep.equal([
      { node: NODE, added: [tunnel('b')], removedNames: ['a'], fullPush: false, nonce: 2n },
      { node: NODE, added: [], removedNames: [], fullPush: false, nonce: 3n },
    ]);
  });

  it('lists a name in both lists if it drops and returns between two reports', () => {
    const w = createHarness();
    w.network.respond = ackAll;
    w.held.push(tunnel('a'));
    w.client.start();
    w.client.receive({ connections: [], disconnections: ['a'] });
    w.client.receive({ connections: [tunnel('a')], disconnections: [] });
    w.clock.advance(INTERVAL_MS);
    expect(w.at(0).reports[1]).to.deep.include({ added: [tunnel('a')], removedNames: ['a'] });
  });

  it('includes its node in every report, or with nodeOnFirstOnly in the first one of each stream', () => {
    const always = createHarness();
    always.network.respond = ackAll;
    always.client.start();
    always.clock.advance(INTERVAL_MS * 3);
    expect(always.at(0).reports.map(({ node }) => node)).to.deep.equal([NODE, NODE, NODE, NODE]);

    const once = createHarness({ nodeOnFirstOnly: true });
    once.network.respond = ackAll;
    once.client.start();
    once.clock.advance(INTERVAL_MS);
    once.at(0).handlers.onEnd({ code: 14, message: '' });
    once.clock.advance(RETRY_MS);
    expect(once.at(0).reports.map(({ node }) => node)).to.deep.equal([NODE, undefined]);
    expect(once.at(1).reports.map(({ node }) => node)).to.deep.equal([NODE]);
  });

  it('does not modify the lists of a report after it was sent', () => {
    const w = createHarness();
    w.held.push(tunnel('a'));
    w.client.start();
    w.client.receive({ connections: [tunnel('b')], disconnections: ['a'] });
    expect(w.at(0).reports[0]).to.deep.include({ added: [tunnel('a')], removedNames: [] });
  });
});

describe('simulated Envoy client: ACKs', () => {
  it('resets the stream if more than max_retries reports are unacknowledged when the next one is due', () => {
    const w = createHarness();
    w.client.start();
    w.clock.advance(INTERVAL_MS * MAX_RETRIES);
    expect(w.sent(0)).to.deep.equal([1, 2, 3]);
    expect(w.disconnects()).to.deep.equal([]);
    w.clock.advance(INTERVAL_MS);
    expect(w.sent(0)).to.deep.equal([1, 2, 3]);
    expect(w.disconnects()).to.deep.equal(['max_retries_exceeded']);
    expect(w.at(0).reset).to.equal(true);
    w.clock.advance(RETRY_MS - 1);
    expect(w.streams).to.have.length(1);
    w.clock.advance(1);
    expect(w.sent(1)).to.deep.equal([1]);
  });

  it('accepts a late ACK for all reports up to its nonce', () => {
    const w = createHarness();
    w.client.start();
    w.clock.advance(INTERVAL_MS * MAX_RETRIES);
    w.ack(0, 3);
    expect(w.count('acked')).to.equal(1);
    expect(w.latencies()).to.deep.equal([INTERVAL_MS * 2, INTERVAL_MS, 0]);
    w.clock.advance(INTERVAL_MS * (MAX_RETRIES + 1));
    expect(w.sent(0)).to.deep.equal([1, 2, 3, 4, 5, 6]);
    expect(w.disconnects()).to.deep.equal([]);
  });

  for (const [situation, nonce] of [
    ['0', 0n],
    ['already acknowledged', 2n],
    ['lower than the acknowledged one', 1n],
    ['negative', -1n],
    ['never sent', 4n],
    ['the maximum int64, which a double cannot represent', 9_223_372_036_854_775_807n],
  ] as const) {
    it(`counts an ACK whose nonce is ${situation} as out of order and ignores it`, () => {
      const w = createHarness();
      w.client.start();
      w.clock.advance(INTERVAL_MS * 2);
      w.ack(0, 2);
      w.ack(0, nonce, 10);
      expect(w.count('outOfOrderAck')).to.equal(1);
      expect(w.count('acked')).to.equal(1);
      expect(w.disconnects()).to.deep.equal([]);
      // The interval of 10 ms was ignored: after the scheduled send, the next one is due a whole interval later.
      w.clock.advance(INTERVAL_MS * 2 - 1);
      expect(w.sent(0)).to.deep.equal([1, 2, 3, 4]);
    });
  }

  it('resets the stream if every ACK is out of order', () => {
    const w = createHarness();
    w.network.respond = () => ({ requestNonce: 0n, reportIntervalMs: undefined, error: undefined });
    w.client.start();
    w.clock.advance(INTERVAL_MS * (MAX_RETRIES + 1));
    expect(w.count('outOfOrderAck')).to.equal(MAX_RETRIES + 1);
    expect(w.disconnects()).to.deep.equal(['max_retries_exceeded']);
  });

  it('ignores a response on an old stream', () => {
    const w = createHarness();
    w.client.start();
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    w.clock.advance(RETRY_MS);
    w.ack(0, 1, 10);
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    expect(w.client.connected()).to.equal(false);
    expect(w.disconnects()).to.deep.equal(['remote_close']);
    w.ack(1, 1);
    expect(w.client.connected()).to.equal(true);
  });
});

describe('simulated Envoy client: report interval', () => {
  it('applies a new interval after the send that is already scheduled', () => {
    const w = createHarness();
    w.client.start();
    w.ack(0, 1, 100);
    w.clock.advance(INTERVAL_MS - 1);
    expect(w.sent(0)).to.deep.equal([1]);
    w.clock.advance(1);
    expect(w.sent(0)).to.deep.equal([1, 2]);
    w.ack(0, 2);
    w.clock.advance(100);
    expect(w.sent(0)).to.deep.equal([1, 2, 3]);
  });

  it('keeps the interval if later ACKs do not repeat it, and across reconnects', () => {
    const w = createHarness();
    w.network.respond = (report) => ({
      ...ackAll(report),
      reportIntervalMs: w.streams.length === 1 ? 100 : undefined,
    });
    w.client.start();
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    w.clock.advance(RETRY_MS);
    w.clock.advance(1000);
    expect(w.sent(1)).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it('ignores the interval of a NACK', () => {
    const w = createHarness();
    w.client.start();
    const error = { code: 3, message: 'node.id is empty' };
    w.at(0).handlers.onResponse({ requestNonce: 1n, reportIntervalMs: 10, error });
    w.clock.advance(RETRY_MS);
    w.ack(1, 1);
    w.clock.advance(INTERVAL_MS - 1);
    expect(w.sent(1)).to.deep.equal([1]);
  });
});

describe('simulated Envoy client: end of a stream', () => {
  it('resets the stream after a NACK and reconnects after the retry interval with a full push', () => {
    const w = createHarness();
    w.held.push(tunnel('a'));
    w.client.start();
    const error = { code: 3, message: 'node.id is empty' };
    w.at(0).handlers.onResponse({ requestNonce: 1n, reportIntervalMs: undefined, error });
    expect(w.at(0).reset).to.equal(true);
    expect(w.disconnects()).to.deep.equal(['nack_received']);
    w.clock.advance(RETRY_MS);
    expect(w.at(1).reports).to.have.length(1);
    expect(w.at(1).reports[0]).to.deep.include({ fullPush: true, nonce: 1n, added: [tunnel('a')] });
  });

  it('leaves no scheduled send if a NACK arrives before send returns', () => {
    const w = createHarness();
    w.network.respond = () => ({
      requestNonce: 1n,
      reportIntervalMs: undefined,
      error: { code: 3, message: '' },
    });
    w.client.start();
    expect(w.clock.pendingTimersMs).to.have.length(1);
    w.clock.advance(RETRY_MS);
    expect(w.sent(0)).to.deep.equal([1]);
    expect(w.sent(1)).to.deep.equal([1]);
  });

  for (const [name, code] of [
    ['OK', 0],
    ['UNAVAILABLE', 14],
    ['RESOURCE_EXHAUSTED', 8],
  ] as const) {
    it(`reconnects with a full push after the server ends the stream with ${name}`, () => {
      const w = createHarness();
      w.client.start();
      w.ack(0, 1);
      w.at(0).handlers.onEnd({ code, message: '' });
      expect(w.client.connected()).to.equal(false);
      expect(w.disconnects()).to.deep.equal(['remote_close']);
      w.clock.advance(RETRY_MS);
      expect(w.at(1).reports[0]).to.deep.include({ fullPush: true, nonce: 1n });
    });
  }

  it('replaces changes that were queued while disconnected with the full push', () => {
    const w = createHarness();
    w.network.respond = ackAll;
    w.held.push(tunnel('a'));
    w.client.start();
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    w.held.splice(0, 1, tunnel('b'));
    w.client.receive({ connections: [tunnel('b')], disconnections: ['a'] });
    w.clock.advance(RETRY_MS + INTERVAL_MS);
    expect(w.at(1).reports.map(({ added, removedNames }) => ({ added, removedNames }))).to.deep.equal([
      { added: [tunnel('b')], removedNames: [] },
      { added: [], removedNames: [] },
    ]);
  });

  it('drops updates beyond its buffer and resets the stream once, without postponing the retry', () => {
    const w = createHarness({ maxBufferCount: 2 });
    w.client.start();
    w.ack(0, 1);
    const three = { connections: [tunnel('a'), tunnel('b')], disconnections: ['c'] };
    w.client.receive(three);
    expect(w.disconnects()).to.deep.equal(['buffer_overflow']);
    w.clock.advance(RETRY_MS - 1);
    w.client.receive(three);
    expect(w.disconnects()).to.deep.equal(['buffer_overflow']);
    expect(w.count('overflowed')).to.equal(2);
    w.clock.advance(1);
    expect(w.streams).to.have.length(2);
  });

  it('leaves no timer when it is stopped while streaming or waiting', () => {
    const streaming = createHarness();
    streaming.client.start();
    streaming.client.stop();
    expect(streaming.at(0).reset).to.equal(true);
    expect(streaming.clock.pendingTimersMs).to.have.length(0);

    const waiting = createHarness();
    waiting.client.start();
    waiting.at(0).handlers.onEnd({ code: 14, message: '' });
    waiting.client.stop();
    expect(waiting.clock.pendingTimersMs).to.have.length(0);
  });
});

describe('simulated Envoy client: settled', () => {
  it('is settled once all changes are sent and ACKed, regardless of unacknowledged heartbeats', () => {
    const w = createHarness();
    w.client.start();
    expect(w.client.settled()).to.equal(false);
    w.ack(0, 1);
    expect(w.client.settled()).to.equal(true);
    w.client.receive({ connections: [tunnel('a')], disconnections: [] });
    expect(w.client.settled()).to.equal(false);
    w.clock.advance(INTERVAL_MS);
    expect(w.client.settled()).to.equal(false);
    w.ack(0, 2);
    w.clock.advance(INTERVAL_MS);
    expect(w.sent(0)).to.deep.equal([1, 2, 3]);
    expect(w.client.settled()).to.equal(true);
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    expect(w.client.settled()).to.equal(false);
  });
});
