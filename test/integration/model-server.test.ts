import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { eventually } from '../support/eventually.ts';
import { MemoryTunnelApi } from '../support/memory-api.ts';
import { createHarness, type ControllerHarness } from '../support/controller-harness.ts';
import { Model, type ExpectedResponse, type ModelStream } from '../support/model.ts';
import { createObjectChecker, MODEL_CLOCK } from '../support/model-objects.ts';
import { MAX_STREAMS, step, type ReporterNode, type ReportSpec, type Step } from '../support/model-steps.ts';
import { assertHolds, PROPERTY_TIMEOUT_MS } from '../support/property-runs.ts';
import { startTestServer, type TestServer } from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import type { RequestFields } from '../support/wire.ts';

type OnInvalid = 'skip' | 'nack';
/** Minimum occurrences, to show that the property was exercised. */
const seen = {
  acks: 0,
  nacks: 0,
  superseded: 0,
  overtaken: 0,
  malformed: 0,
  restarts: 0,
  checks: 0,
  rows: 0,
};

/** Indexes in `Serving.connections`, after the connections of one place each. */
const SHARED = MAX_STREAMS;
const SPARE = MAX_STREAMS + 1;

interface Serving {
  readonly server: TestServer;
  /** Each opens a stream on its connection. */
  readonly connections: readonly (() => TestStream)[];
  /** Number of sequences that it has served. */
  sequences: number;
}

/**
 * Starts another server after this many sequences: a connection may open only a limited number of streams per
 * second, and a test server records everything that it received.
 */
const SEQUENCES_A_SERVER = 50;

/** A stream as known by the client and the model. */
interface Place {
  readonly client: TestStream;
  readonly model: ModelStream;
  readonly reporter: ReporterNode;
  nonce: bigint;
  acks: number;
}

describe('reports sent to the reporting server over loopback', () => {
  /** The receivers of the servers' reports; each sequence, and each restart in it, has its own. */
  let world: ControllerHarness;
  const servers = new Map<OnInvalid, Serving>();

  const start = async (onInvalid: OnInvalid): Promise<Serving> => {
    const server = await startTestServer({
      onInvalid,
      reporterConnected: (reporter, envoy, peer) => world.intake.reporterConnected(reporter, envoy, peer),
      reporterDisconnected: (reporter, why) => world.intake.reporterDisconnected(reporter, why),
      accept: (reporter, report) => world.intake.accept(reporter, report, world.clock.monotonicMs()),
    });
    // One connection shared by all places, one for each place, and one more.
    const connections = Array.from({ length: MAX_STREAMS + 2 }, () => server.connection());
    return { server, connections, sequences: 0 };
  };

  after(async () => {
    for (const { server } of servers.values()) await server.stop();
  });

  async function serving(onInvalid: OnInvalid): Promise<Serving> {
    let now = servers.get(onInvalid);
    if (now === undefined || now.sequences === SEQUENCES_A_SERVER) {
      await now?.server.stop();
      now = await start(onInvalid);
      servers.set(onInvalid, now);
    }
    now.sequences += 1;
    return now;
  }

  /** Runs a sequence against the model and the server and compares responses and objects. */
  async function play(onInvalid: OnInvalid, steps: readonly Step[]): Promise<void> {
    const api = new MemoryTunnelApi();
    const model = new Model(onInvalid);
    const judge = createObjectChecker();
    const places: (Place | undefined)[] = Array.from({ length: MAX_STREAMS }, () => undefined);
    let { server, connections } = await serving(onInvalid);
    let begun = false;
    world = createHarness({ api, serverClock: MODEL_CLOCK });

    /** Opens a stream. The first response shows that the server has seen it. */
    function open(reporter: ReporterNode, connection = SHARED): Place {
      const client = connections[connection]?.();
      if (client === undefined) throw new Error(`no connection ${connection}`);
      return { client, model: model.open(), reporter, nonce: 0n, acks: 0 };
    }

    /** Resolves when the server has seen the streams of a connection: of two streams, the one opened later is the newer. */
    async function seenByServer(connection: number): Promise<void> {
      // What is sent later on a connection is read later.
      const later = connections[connection]?.();
      later?.end();
      expect(await later?.ended).to.deep.include({ code: status.OK });
    }

    function fieldsOf(at: Place, { content, node, nonce }: ReportSpec): RequestFields {
      if (nonce === 'next') at.nonce += 1n;
      return {
        ...content,
        ...(node === 'left out' ? {} : { node: node === 'there' ? at.reporter : node }),
        nonce: nonce === 'next' || nonce === 'same' ? String(at.nonce) : nonce,
      };
    }

    /** Sends a report and returns the response that the model expects. */
    function send(at: Place, burst: readonly ReportSpec[]): ExpectedResponse[] {
      return burst.map((one) => {
        const fields = fieldsOf(at, one);
        at.client.send(fields);
        return model.report(at.model, fields);
      });
    }

    async function answered(at: Place, answers: readonly ExpectedResponse[]): Promise<void> {
      for (const answer of answers) {
        if (answer.kind === 'nothing') continue;
        const { request_nonce, report_interval, error_detail } = await at.client.next();
        // request_nonce must not be negative.
        expect(request_nonce ?? '0').to.equal(answer.nonce.startsWith('-') ? '0' : answer.nonce);
        if (answer.kind === 'nack') {
          expect(error_detail?.code).to.equal(status.INVALID_ARGUMENT);
          expect(error_detail?.message).to.match(
            new RegExp(`^${answer.field.replaceAll(/[.[\]]/g, String.raw`\$&`)}: `),
          );
          expect(await at.client.ended).to.deep.include({ code: status.OK });
          seen.nacks += 1;
        } else {
          expect(error_detail ?? undefined).to.equal(undefined);
          expect(report_interval?.seconds, 'sent once').to.equal(at.acks === 0 ? '5' : undefined);
          at.acks += 1;
          seen.acks += 1;
        }
      }
      expect(at.client.responses.length, 'no other response').to.equal(at.acks + (nacked(answers) ? 1 : 0));
      await othersEnded();
    }

    /** Streams that were superseded by a newer one of their reporter. */
    async function othersEnded(): Promise<void> {
      for (const [index, at] of places.entries()) {
        if (at === undefined || at.model.open || at.model.reporter === undefined) continue;
        const { code } = await at.client.ended;
        const codes: number[] = [status.ABORTED, status.OK];
        expect(code).to.be.oneOf(codes);
        if (code === codes[0]) seen.superseded += 1;
        places[index] = undefined;
      }
    }

    async function take(next: Step): Promise<void> {
      if (next.do === 'settle') {
        await check();
        return;
      }
      if (next.do === 'restart') {
        await restart();
        return;
      }
      const at = places[next.place];
      if (next.do === 'open') {
        if (at !== undefined) await leave(at);
        const connection = next.ownConnection ? next.place : SHARED;
        places[next.place] = open(next.reporter, connection);
        await seenByServer(connection);
        return;
      }
      if (next.do === 'report') {
        const on = at?.model.open === true ? at : open(next.reporter);
        places[next.place] = on;
        await answered(on, send(on, next.burst));
        return;
      }
      if (at === undefined || !at.model.open) return;
      switch (next.do) {
        case 'cancel':
          await leave(at);
          places[next.place] = undefined;
          break;
        case 'half-close':
          at.client.end();
          model.end(at.model);
          expect(await at.client.ended).to.deep.include({ code: status.OK });
          places[next.place] = undefined;
          break;
        case 'malformed':
          at.client.sendBytes(Buffer.from([0x12, 0x7f, 0x0a]));
          model.end(at.model);
          expect(await at.client.ended).to.deep.include({ code: status.INVALID_ARGUMENT });
          places[next.place] = undefined;
          seen.malformed += 1;
          break;
        case 'overtake':
          if (at.model.reporter === undefined) return;
          for (const one of next.burst) at.client.send(fieldsOf(at, one));
          places[next.place] = await overtake(at, at.model.reporter, next.by);
      }
    }

    /** A report of the older stream may have been read or not; the newer stream's reports count. */
    async function overtake(older: Place, reporter: ReporterNode, content: RequestFields): Promise<Place> {
      const newer = open(reporter, SPARE);
      const answers = send(newer, [{ content, node: 'there', nonce: 'next' }]);
      await answered(newer, answers);
      await older.client.ended;
      model.renewGenerations(reporter.cluster, reporter.id);
      seen.overtaken += 1;
      return newer;
    }

    /** Resolves when the server has seen the end, so that the next stream does not exceed a limit. */
    async function leave(at: Place): Promise<void> {
      at.client.cancel();
      model.end(at.model);
      await connectedAsTheModelSays();
    }

    async function connectedAsTheModelSays(): Promise<void> {
      const expected = model.connectedReporters;
      await eventually(`${expected} reporters`, () => server.server.connectedReporters === expected);
    }

    async function check(): Promise<void> {
      if (!begun) {
        model.markListed();
        await world.start();
      }
      begun = true;
      await world.settleFlapping();
      const rows = [...api.stored.values()];
      judge(model.objects, rows);
      await connectedAsTheModelSays();
      seen.checks += 1;
      seen.rows += rows.length;
    }

    async function restart(): Promise<void> {
      await check();
      world.workers.stop();
      await server.stop();
      for (const at of places) await at?.client.ended;
      places.fill(undefined);
      model.restart();
      world = createHarness({ api, serverClock: MODEL_CLOCK });
      begun = false;
      ({ server, connections } = await start(onInvalid));
      servers.set(onInvalid, { server, connections, sequences: 0 });
      seen.restarts += 1;
    }

    try {
      await check();
      for (const next of steps) await take(next);
      await check();
    } finally {
      for (const at of places) at?.client.cancel();
      await eventually('every reporter disconnected', () => server.server.connectedReporters === 0);
      world.workers.stop();
    }
  }

  it('get the responses and result in the objects that the model expects, in any order', async function () {
    this.timeout(PROPERTY_TIMEOUT_MS);
    const property = fc.asyncProperty(
      fc.constantFrom('skip' as const, 'nack' as const),
      fc.array(step, { minLength: 10, maxLength: 40, size: 'max' }),
      play,
    );
    const runs = await assertHolds(property, { runs: 250, file: 'test/integration/model-server.test.ts' });
    for (const [what, times] of Object.entries(seen))
      expect(times, what).to.be.at.least(Math.floor(runs / 20));
  });
});

function nacked(answers: readonly ExpectedResponse[]): boolean {
  return answers.some(({ kind }) => kind === 'nack');
}
