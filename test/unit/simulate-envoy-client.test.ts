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

/** A stream as the server sees it. */
interface FakeStream {
  readonly reports: ReportMessage[];
  readonly handlers: StreamHandlers;
  reset: boolean;
}

/** A client with a network that records, and answers only when told to. */
function world(config: Partial<EnvoyClientConfig> = {}) {
  const clock = new FakeClock();
  const streams: FakeStream[] = [];
  const events: ClientEvent[] = [];
  const held: ReportedTunnel[] = [];
  const network = {
    refuses: false,
    answer: undefined as ((report: ReportMessage) => ResponseMessage) | undefined,
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
        if (network.refuses) return undefined;
        const stream: FakeStream = { reports: [], handlers, reset: false };
        streams.push(stream);
        return {
          send(report) {
            stream.reports.push(report);
            if (network.answer !== undefined) handlers.onResponse(network.answer(report));
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
    if (stream === undefined) throw new Error(`there is no stream ${index}`);
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

describe('simulated Envoy client: connecting', () => {
  it('sends a full push of everything with nonce 1 at once, in a single message', () => {
    const w = world();
    w.held.push(tunnel('a'), tunnel('b'));
    w.client.start();
    expect(w.at(0).reports).to.deep.equal([
      { node: NODE, added: [tunnel('a'), tunnel('b')], removedNames: [], fullPush: true, nonce: 1n },
    ]);
  });

  it('sends a full push also when it holds nothing, and however much it holds', () => {
    const empty = world();
    empty.client.start();
    expect(empty.at(0).reports).to.have.length(1);
    expect(empty.at(0).reports[0]).to.include({ fullPush: true });

    const full = world({ maxBufferCount: 10 });
    full.held.push(...Array.from({ length: 11 }, (_, i) => tunnel(`n-${i}`)));
    full.client.start();
    expect(full.at(0).reports[0]?.added).to.have.length(11);
  });

  it('tries again after each retry interval, without end, when no stream can be made', () => {
    const w = world();
    w.network.refuses = true;
    w.client.start();
    w.clock.advance(RETRY_MS * 10);
    expect(w.disconnects()).to.deep.equal(Array.from({ length: 11 }, () => 'stream_creation_failed'));
    w.network.refuses = false;
    w.clock.advance(RETRY_MS);
    expect(w.sent(0)).to.deep.equal([1]);
  });

  it('ignores updates before the start, as the full push will have them', () => {
    const w = world();
    w.client.receive({ connections: [tunnel('early')], disconnections: [] });
    w.client.start();
    w.ack(0, 1);
    w.clock.advance(INTERVAL_MS);
    expect(w.at(0).reports[1]?.added).to.deep.equal([]);
  });
});

describe('simulated Envoy client: a stream that lives', () => {
  it('sends what changed with the next report, and an empty report when nothing did', () => {
    const w = world();
    w.network.answer = ackAll;
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

  it('puts a name that drops and returns between two reports into both lists', () => {
    const w = world();
    w.network.answer = ackAll;
    w.held.push(tunnel('a'));
    w.client.start();
    w.client.receive({ connections: [], disconnections: ['a'] });
    w.client.receive({ connections: [tunnel('a')], disconnections: [] });
    w.clock.advance(INTERVAL_MS);
    expect(w.at(0).reports[1]).to.deep.include({ added: [tunnel('a')], removedNames: ['a'] });
  });

  it('names its node in every report, or on request in the first of each stream only', () => {
    const always = world();
    always.network.answer = ackAll;
    always.client.start();
    always.clock.advance(INTERVAL_MS * 3);
    expect(always.at(0).reports.map(({ node }) => node)).to.deep.equal([NODE, NODE, NODE, NODE]);

    const once = world({ nodeOnFirstOnly: true });
    once.network.answer = ackAll;
    once.client.start();
    once.clock.advance(INTERVAL_MS);
    once.at(0).handlers.onEnd({ code: 14, message: '' });
    once.clock.advance(RETRY_MS);
    expect(once.at(0).reports.map(({ node }) => node)).to.deep.equal([NODE, undefined]);
    expect(once.at(1).reports.map(({ node }) => node)).to.deep.equal([NODE]);
  });

  it('leaves the lists of a report as they were sent when more changes come', () => {
    const w = world();
    w.held.push(tunnel('a'));
    w.client.start();
    w.client.receive({ connections: [tunnel('b')], disconnections: ['a'] });
    expect(w.at(0).reports[0]).to.deep.include({ added: [tunnel('a')], removedNames: [] });
  });
});

describe('simulated Envoy client: ACKs', () => {
  it('drops the stream when more than max_retries reports are unacknowledged as the next is due', () => {
    const w = world();
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

  it('takes one late ACK for all reports up to its nonce', () => {
    const w = world();
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
    ['older than one acknowledged', 1n],
    ['negative', -1n],
    ['never sent', 4n],
    ['the greatest int64, one digit of which a double would lose', 9_223_372_036_854_775_807n],
  ] as const) {
    it(`counts an ACK as out of order whose nonce is ${situation}, and does not move for it`, () => {
      const w = world();
      w.client.start();
      w.clock.advance(INTERVAL_MS * 2);
      w.ack(0, 2);
      w.ack(0, nonce, 10);
      expect(w.count('outOfOrderAck')).to.equal(1);
      expect(w.count('acked')).to.equal(1);
      expect(w.disconnects()).to.deep.equal([]);
      // Its interval of 10 ms was not taken: after the send that is scheduled, the next is a whole interval away.
      w.clock.advance(INTERVAL_MS * 2 - 1);
      expect(w.sent(0)).to.deep.equal([1, 2, 3, 4]);
    });
  }

  it('drops the stream in the end when every answer is out of order', () => {
    const w = world();
    w.network.answer = () => ({ requestNonce: 0n, reportIntervalMs: undefined, error: undefined });
    w.client.start();
    w.clock.advance(INTERVAL_MS * (MAX_RETRIES + 1));
    expect(w.count('outOfOrderAck')).to.equal(MAX_RETRIES + 1);
    expect(w.disconnects()).to.deep.equal(['max_retries_exceeded']);
  });

  it('does not take an answer on an old stream for one on the new', () => {
    const w = world();
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

describe('simulated Envoy client: the report interval', () => {
  it('takes effect with the send after the one that is already scheduled', () => {
    const w = world();
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

  it('stays when later ACKs do not repeat it, and across reconnects', () => {
    const w = world();
    w.network.answer = (report) => ({
      ...ackAll(report),
      reportIntervalMs: w.streams.length === 1 ? 100 : undefined,
    });
    w.client.start();
    w.at(0).handlers.onEnd({ code: 14, message: '' });
    w.clock.advance(RETRY_MS);
    w.clock.advance(1000);
    expect(w.sent(1)).to.deep.equal([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it('is not taken from a NACK', () => {
    const w = world();
    w.client.start();
    const error = { code: 3, message: 'node.id is empty' };
    w.at(0).handlers.onResponse({ requestNonce: 1n, reportIntervalMs: 10, error });
    w.clock.advance(RETRY_MS);
    w.ack(1, 1);
    w.clock.advance(INTERVAL_MS - 1);
    expect(w.sent(1)).to.deep.equal([1]);
  });
});

describe('simulated Envoy client: the end of a stream', () => {
  it('answers a NACK by a reset, and comes back after the retry interval with a full push', () => {
    const w = world();
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

  it('leaves no send behind when the NACK comes before send has returned', () => {
    const w = world();
    w.network.answer = () => ({
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
    it(`takes an end with ${name} for a failure: reconnect and full push`, () => {
      const w = world();
      w.client.start();
      w.ack(0, 1);
      w.at(0).handlers.onEnd({ code, message: '' });
      expect(w.client.connected()).to.equal(false);
      expect(w.disconnects()).to.deep.equal(['remote_close']);
      w.clock.advance(RETRY_MS);
      expect(w.at(1).reports[0]).to.deep.include({ fullPush: true, nonce: 1n });
    });
  }

  it('supersedes what was queued while disconnected by the full push', () => {
    const w = world();
    w.network.answer = ackAll;
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

  it('drops updates beyond its buffer and the stream with them, once, without putting off the retry', () => {
    const w = world({ maxBufferCount: 2 });
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

  it('leaves no timer when it is stopped, streaming or waiting', () => {
    const streaming = world();
    streaming.client.start();
    streaming.client.stop();
    expect(streaming.at(0).reset).to.equal(true);
    expect(streaming.clock.pendingTimersMs).to.have.length(0);

    const waiting = world();
    waiting.client.start();
    waiting.at(0).handlers.onEnd({ code: 14, message: '' });
    waiting.client.stop();
    expect(waiting.clock.pendingTimersMs).to.have.length(0);
  });
});

describe('simulated Envoy client: settled', () => {
  it('is true once everything is sent and ACKed, whatever heartbeats are under way', () => {
    const w = world();
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
