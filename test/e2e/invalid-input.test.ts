/**
 * Invalid and unusual reports, each sent to a running operator by a reporter of its own that already has testCase valid
 * tunnel.
 */
import type { Client } from '@grpc/grpc-js';
import { expect } from 'chai';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { dial, openStream, type TestStream } from '../support/test-stream.ts';
import { listTunnelObjects } from '../support/expected-objects.ts';
import { fullPush, requestBytes, tunnel, type RequestFields, type TunnelFields } from '../support/wire.ts';

const DEADLINE_MS = 60_000;
/** gRPC status codes. */
const OK = 0;
const INVALID_ARGUMENT = 3;
const RESOURCE_EXHAUSTED = 8;
const UNIMPLEMENTED = 12;
const OMITTED_CREATED_AT = 'reverse-tunnel.io/omitted-created-at';
const MAX_INT64 = '9223372036854775807';

interface Case {
  readonly what: string;
  /**
   * Sent as the reporter's second report with nonce 2, unless it sets another; with `isFirst`, as its first report.
   */
  readonly report?: RequestFields;
  readonly bytes?: Buffer;
  readonly isFirst?: boolean;
  /** The expected NACK message; an ACK is expected when undefined. */
  readonly nack?: RegExp;
  /** The expected status of the stream; it stays open when undefined. */
  readonly status?: number;
  /** Names of the tunnels that have an object afterwards. Default: `kept`. */
  readonly objects?: readonly string[];
  /** The expected spec.createdAt of `odd`; undefined when the field must be absent. */
  readonly createdAt?: string | undefined;
  /** The expected annotation with an omitted time; undefined when it must be absent. */
  readonly omitted?: string;
}

const { identity } = tunnel('x');

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

function addition(...tunnels: TunnelFields[]): RequestFields {
  return { added_tunnels: tunnels };
}

function odd(other: TunnelFields): TunnelFields {
  return { ...tunnel('odd'), ...other };
}

function createdAt(seconds: string | number, nanos = 0): RequestFields {
  return addition(odd({ created_at: { seconds, nanos } }));
}

/** The same with `--on-invalid` skip and nack. */
const CASES: readonly Case[] = [
  {
    what: 'a first report without node',
    isFirst: true,
    report: fullPush(1),
    nack: /^node: required/,
    status: OK,
    objects: [],
  },
  {
    what: 'an empty node.id',
    isFirst: true,
    report: { ...fullPush(1), node: { id: '', cluster: 'edge' } },
    nack: /^node\.id: /,
    status: OK,
    objects: [],
  },
  {
    what: 'a node.id that changes within the stream',
    report: { node: { id: 'another-reporter', cluster: 'edge' }, ...fullPush(1) },
    nack: /^node\.id: changed from "r-\d+-\w+" to "another-reporter"/,
    status: OK,
  },
  { what: 'a negative nonce', report: { nonce: '-1', ...fullPush(1) }, nack: /^nonce: -1 /, status: OK },
  { what: 'nonce 0', report: { nonce: 0, ...addition(tunnel('odd')) }, objects: ['kept', 'odd'] },
  { what: 'a repeated nonce', report: { nonce: 1, ...addition(tunnel('odd')) }, objects: ['kept', 'odd'] },
  {
    what: 'a gap in the nonces',
    report: { nonce: 99, ...addition(tunnel('odd')) },
    objects: ['kept', 'odd'],
  },
  {
    what: 'the maximum nonce',
    report: { nonce: MAX_INT64, ...addition(tunnel('odd')) },
    objects: ['kept', 'odd'],
  },
  {
    what: 'created_at in the year 1',
    report: createdAt('-62135596800'),
    objects: ['kept', 'odd'],
    createdAt: '0001-01-01T00:00:00Z',
  },
  {
    what: 'created_at in the year 9999',
    report: createdAt('253402300799', 999_999_999),
    objects: ['kept', 'odd'],
    createdAt: undefined,
    omitted: '9999-12-31T23:59:59.999999999Z',
  },
  {
    what: 'created_at in the year 10000',
    report: createdAt('253402300800'),
    objects: ['kept', 'odd'],
    createdAt: undefined,
  },
  {
    what: 'created_at before the year 1',
    report: createdAt('-62135596801'),
    objects: ['kept', 'odd'],
    createdAt: undefined,
  },
  {
    what: 'created_at with negative nanos',
    report: createdAt(1_790_000_000, -1),
    objects: ['kept', 'odd'],
    createdAt: undefined,
  },
  {
    what: 'created_at with 1e9 nanos',
    report: createdAt(1_790_000_000, 1e9),
    objects: ['kept', 'odd'],
    createdAt: undefined,
  },
  {
    what: 'a tunnel without created_at',
    report: addition({ name: 'odd', identity }),
    objects: ['kept', 'odd'],
    createdAt: undefined,
  },
  {
    what: 'a name that is added twice',
    report: addition(tunnel('odd'), tunnel('odd')),
    objects: ['kept', 'odd'],
  },
  {
    what: 'a name that is added and removed',
    report: { added_tunnels: [tunnel('odd')], removed_tunnel_names: ['odd'] },
  },
  {
    what: 'a known name that is removed and added',
    report: { added_tunnels: [tunnel('kept')], removed_tunnel_names: ['kept'] },
  },
  { what: 'a removal of an unknown name', report: { removed_tunnel_names: ['never-there'] } },
  {
    what: 'removals in a full push, which have no effect',
    report: { full_push: true, added_tunnels: [tunnel('odd')], removed_tunnel_names: ['odd', 'kept'] },
    objects: ['odd'],
  },
  { what: 'an empty full push', report: { full_push: true }, objects: [] },
  ...['__proto__', 'constructor', '🚇', 'a/b', '../..', 'UPPER', 'trailing---', '-', 'x'.repeat(512)].map(
    (name) => ({
      what: `a tunnel named ${name.slice(0, 20)}${name.length > 20 ? '… (512 characters)' : ''}`,
      report: addition(odd({ name })),
      objects: [name, 'kept'],
    }),
  ),
  {
    what: 'a truncated report',
    bytes: Buffer.from('2802120a0a036f0a64ed', 'hex'),
    status: INVALID_ARGUMENT,
  },
  { what: 'bytes that are not protobuf', bytes: Buffer.alloc(100, 0xff), status: INVALID_ARGUMENT },
  { what: 'a zero-length message', bytes: Buffer.alloc(0) },
  {
    what: 'unknown fields after a report',
    bytes: Buffer.concat([requestBytes({ nonce: 2 }), Buffer.from('a20604abcdabcd', 'hex')]),
  },
  { what: 'a report above the message size limit', bytes: Buffer.alloc(200_001), status: RESOURCE_EXHAUSTED },
  {
    what: 'more tunnels than the limit per reporter',
    report: fullPush(1001),
    nack: /would hold 1001 tunnels, limit is 1000/,
    status: RESOURCE_EXHAUSTED,
  },
  {
    what: 'more entries than twice the tunnel limit',
    report: { removed_tunnel_names: Array.from({ length: 2001 }, (_, i) => `n-${i}`) },
    status: RESOURCE_EXHAUSTED,
  },
];

/** Rejected with `skip`; with `nack` the whole report is rejected. Each report also adds a valid tunnel `valid`. */
const INVALID_TUNNELS: readonly { what: string; invalid: TunnelFields; field: string }[] = [
  { what: 'no identity', invalid: { name: 'odd' }, field: 'identity' },
  {
    what: 'no tenant',
    invalid: odd({ identity: { ...identity, tenant_id: '' } }),
    field: 'identity.tenant_id',
  },
  { what: 'an empty name', invalid: odd({ name: '' }), field: 'name' },
  { what: 'a name of 513 characters', invalid: odd({ name: 'x'.repeat(513) }), field: 'name' },
  { what: 'a name of 2,000 characters', invalid: odd({ name: 'x'.repeat(2000) }), field: 'name' },
  {
    what: 'a tenant of 129 characters',
    invalid: odd({ identity: { ...identity, tenant_id: 'x'.repeat(129) } }),
    field: 'identity.tenant_id',
  },
  { what: 'a NUL in its name', invalid: odd({ name: 'o\0dd' }), field: 'name' },
  { what: 'a line break in its name', invalid: odd({ name: 'o\ndd' }), field: 'name' },
  {
    what: 'a bidi override in its node',
    invalid: odd({ identity: { ...identity, node_id: 'a\u202eb' } }),
    field: 'identity.node_id',
  },
  {
    what: 'a C1 control in its cluster',
    invalid: odd({ identity: { ...identity, cluster_id: 'a\u0085b' } }),
    field: 'identity.cluster_id',
  },
];

const SKIPPED: readonly Case[] = INVALID_TUNNELS.map(({ what, invalid }) => ({
  what: `a tunnel with ${what}`,
  report: addition(tunnel('valid'), invalid),
  objects: ['valid', 'kept'],
}));

const NACKED: readonly Case[] = INVALID_TUNNELS.map(({ what, invalid, field }) => ({
  what: `a tunnel with ${what}`,
  report: addition(tunnel('valid'), invalid),
  nack: new RegExp(`^added_tunnels\\[1\\]\\.${field.replaceAll('.', '\\.')}: `),
  status: OK,
}));

describe('invalid input from reporters', () => {
  const controlPlane = useControlPlane();

  for (const { mode, cases } of [
    { mode: 'skip', cases: [...CASES, ...SKIPPED] },
    { mode: 'nack', cases: [...CASES, ...NACKED] },
  ]) {
    describe(`with --on-invalid ${mode}`, () => {
      let namespace: string;
      let operator: OperatorProcess;
      let client: Client;
      let neighbour: TestStream;
      let neighbourNonce = 1;

      before(async () => {
        namespace = await createNamespace(controlPlane(), `bad-inputs-${mode}`);
        const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
        const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
        operator = await startOperatorProcess({
          kubeconfigPath,
          namespace,
          flags: [
            ...['--on-invalid', mode, '--report-interval', '100ms'],
            ...['--max-message-size', '200000', '--max-tunnels-per-reporter', '1000'],
          ],
        });
        await operator.ready();
        client = dial(operator.grpcAddress);
        neighbour = openStream(client);
        neighbour.send({ node: { id: 'neighbour', cluster: 'edge' }, nonce: 1 });
        await neighbour.next();
      });

      after(async () => {
        client.close();
        await operator.kill();
      });

      for (const [i, testCase] of cases.entries()) {
        it(`${testCase.what} is answered by ${outcome(testCase)}`, async () => {
          const reporter = { id: `r-${i}-${mode}`, cluster: 'edge' };
          const stream = openStream(client);
          if (testCase.isFirst !== true) {
            stream.send({ node: reporter, nonce: 1, full_push: true, added_tunnels: [tunnel('kept')] });
            await stream.next();
          }
          stream.sendBytes(testCase.bytes ?? requestBytes({ nonce: 2, ...testCase.report }));
          if (testCase.nack !== undefined || testCase.status === undefined) {
            const answer = await stream.next();
            const nonce = String(testCase.report?.nonce ?? 2);
            // request_nonce must not be negative.
            if (testCase.bytes === undefined)
              expect(answer.request_nonce).to.equal(nonce.startsWith('-') ? '0' : nonce);
            if (testCase.nack === undefined) expect(answer.error_detail ?? undefined).to.equal(undefined);
            else expect(answer.error_detail?.message).to.match(testCase.nack);
          }
          if (testCase.status === undefined) {
            stream.send({ nonce: 3 });
            expect(await stream.next()).to.deep.include({ request_nonce: '3' });
          } else {
            expect((await stream.ended).code).to.equal(testCase.status);
          }

          // The other stream of the same connection is not affected.
          neighbourNonce += 1;
          neighbour.send({ nonce: neighbourNonce });
          expect(await neighbour.next()).to.deep.include({ request_nonce: String(neighbourNonce) });

          const expected = (testCase.objects ?? ['kept']).toSorted();
          let nonce = 3;
          const mine = await poll(DEADLINE_MS, async () => {
            // A stale object is deleted only after a fresh report, so this sends reports as Envoy does.
            nonce += 1;
            if (testCase.status === undefined) stream.send({ nonce });
            const all = await listTunnelObjects(controlPlane().request, namespace);
            const objects = all.filter(({ spec }) => spec.reporter.id === reporter.id);
            const names = objects.map(({ spec }) => spec.tunnelName).toSorted();
            return JSON.stringify(names) === JSON.stringify(expected) ? objects : undefined;
          });
          if ('createdAt' in testCase) {
            const object = mine.find(({ spec }) => spec.tunnelName === 'odd');
            expect(object?.spec.createdAt).to.equal(testCase.createdAt);
            expect(object?.metadata.annotations?.[OMITTED_CREATED_AT]).to.equal(testCase.omitted);
          }
          stream.cancel();
        });
      }

      it('creates no other objects and logs no errors', async () => {
        const objects = await listTunnelObjects(controlPlane().request, namespace);
        expect(objects.map(({ spec }) => spec.reporter.id)).to.satisfy((ids: string[]) =>
          ids.every((id) => /^r-\d+-\w+$/.test(id)),
        );
        expect(operator.log.filter(({ level }) => level === 'error')).to.deep.equal([]);
      });

      it('answers an unknown method with UNIMPLEMENTED', async () => {
        const call = client.makeBidiStreamRequest('/no.Such/Method', asIs, asIs);
        call.on('error', () => {});
        call.resume();
        const code = await new Promise((resolve) => call.on('status', (ended) => resolve(ended.code)));
        expect(code).to.equal(UNIMPLEMENTED);
      });
    });
  }
});

/** Describes the expected outcome for a test title. */
function outcome({ nack, status }: Case): string {
  if (nack !== undefined) return `a NACK, and the stream ends${status === OK ? '' : ` with ${status}`}`;
  return status === undefined ? 'an ACK' : `ending the stream with ${status}`;
}
