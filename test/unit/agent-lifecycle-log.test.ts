import { expect } from 'chai';
import { parseLifecycleLine } from '../../src/agent/lifecycle-log.ts';

describe('A line of the lifecycle log', () => {
  const lifecycle = {
    event: 'tunnel_setup',
    tenant_id: 'acme',
    cluster_id: 'eu-1',
    node_id: 'node-17',
    worker: 'worker_0',
    fd: 33,
  };

  it('names the tunnel and the time at which it came up', () => {
    expect(parseLifecycleLine(JSON.stringify({ time: '1795864794.082196', lifecycle }))).to.deep.equal({
      type: 'setup',
      tenantID: 'acme',
      clusterID: 'eu-1',
      nodeID: 'node-17',
      connection: '["worker_0",33]',
      time: { seconds: 1_795_864_794, nanos: 82_196_000 },
    });
  });

  const times = {
    '1795864794': { seconds: 1_795_864_794, nanos: 0 },
    '1795864794.5': { seconds: 1_795_864_794, nanos: 500_000_000 },
    '1795864794.082196999': { seconds: 1_795_864_794, nanos: 82_196_000 },
    '2026-11-28T11:19:54.082Z': { seconds: 1_795_864_794, nanos: 82_000_000 },
    '2026-11-28T11:19:54Z': { seconds: 1_795_864_794, nanos: 0 },
    '2026-11-28T16:49:54.082196+05:30': { seconds: 1_795_864_794, nanos: 82_196_000 },
    // The time zone is unknown.
    '2026-11-28T11:19:54': undefined,
    '2026-11-28 11:19:54': undefined,
    '28/Nov/2026:11:19:54 +0000': undefined,
    '2026-13-28T11:19:54Z': undefined,
    '2026-11-28T25:19:54Z': undefined,
    '-1.000000': undefined,
    '1e9': undefined,
    '999999999999': undefined,
    NaN: undefined,
    '': undefined,
    '-': undefined,
  };
  for (const [time, expected] of Object.entries(times)) {
    it(`has ${expected === undefined ? 'no time' : 'a time'} if it contains "${time}"`, () => {
      const event = parseLifecycleLine(JSON.stringify({ time, lifecycle }));
      expect(event).to.have.property('time').that.deep.equals(expected);
    });
  }

  it('may lack the time and the tenant', () => {
    const { tenant_id: _, ...rest } = lifecycle;
    expect(parseLifecycleLine(JSON.stringify({ time: '-', lifecycle: rest }))).to.include({
      tenantID: '',
      time: undefined,
    });
  });

  for (const time of ['{"toString":null}', '{}', '[]', '["1795864794"]', 'null', 'true', '1e999']) {
    it(`has no time if that is the JSON value ${time}`, () => {
      const line = `{"time":${time},"lifecycle":${JSON.stringify(lifecycle)}}`;
      expect(parseLifecycleLine(line)).to.have.property('time').that.equals(undefined);
    });
  }

  it('is ignored for other events', () => {
    expect(parseLifecycleLine(JSON.stringify({ lifecycle: { ...lifecycle, event: 'ping' } }))).to.equal(
      undefined,
    );
  });

  it('is rejected if it does not identify the connection', () => {
    const { fd: _, ...rest } = lifecycle;
    expect(parseLifecycleLine(JSON.stringify({ lifecycle: rest }))).to.have.property('error');
  });

  const setup = JSON.stringify({ time: '1795864794.082196', lifecycle });
  const rejected = [
    ...[
      '',
      '{"time": "17',
      'null',
      '[]',
      '{}',
      '1',
      '"tunnel_setup"',
      '{"lifecycle":{"event":"tunnel_setup"}}',
    ],
    ...['{"lifecycle":null}', '{"lifecycle":{"event":1}}', setup.slice(1), setup.slice(0, -1), setup + setup],
    '[2026-11-28T11:19:54.082Z] "- - -" 0 - 0 0 0 - "-" "-" "-" "-" "-"',
    JSON.stringify({ lifecycle: { ...lifecycle, node_id: 17 } }),
    JSON.stringify({ lifecycle: { ...lifecycle, cluster_id: ['eu-1'] } }),
    JSON.stringify({ lifecycle: { ...lifecycle, worker: {} } }),
    JSON.stringify({ lifecycle: { ...lifecycle, fd: [33] } }),
  ];
  it('is rejected if it nests more deeply than it could be written again', () => {
    const nested = '['.repeat(30_000) + ']'.repeat(30_000);
    const line = JSON.stringify({ lifecycle: { ...lifecycle, fd: 'nested' } }).replace('"nested"', nested);
    expect(parseLifecycleLine(line)).to.have.property('error');
  });

  for (const line of rejected) {
    it(`is rejected if it is ${JSON.stringify(line)}`, () => {
      expect(parseLifecycleLine(line)).to.have.property('error');
    });
  }
});
