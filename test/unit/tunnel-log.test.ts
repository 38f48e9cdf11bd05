import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { pino } from 'pino';
import type { RecordedTransition } from '../../src/controller/transition-recorder.ts';
import { TRANSITION_REASONS } from '../../src/core/tunnel-transition.ts';
import { createMetrics } from '../../src/metrics.ts';
import { openTunnelLog, transitionLine, type TunnelLog } from '../../src/tunnel-log.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { pages } from '../support/markdown-pages.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const PROCESS = { namespace: 'tunnels', replica: 'operator-0-0a1b2c3d' };
const WALL_MS = Date.UTC(2026, 10, 28, 17, 36, 2, 26);

function transition(overrides: Partial<RecordedTransition> = {}): RecordedTransition {
  const removed = tunnel('node-17');
  return {
    reason: 'Removed',
    state: 'Closed',
    tunnel: removed,
    ended: removed,
    endedWithReporter: false,
    wallMs: WALL_MS,
    sequence: 4,
    reporter: RESPONDER,
    objectName: 'node-17-the2rz0rcb0vk',
    upMs: 601_026,
    ...overrides,
  };
}

describe('a line of the tunnel log', () => {
  it('contains the documented fields', () => {
    expect(transitionLine(PROCESS, transition())).to.equal(
      '{"log":"tunnel","time":"2026-11-28T17:36:02.026Z","reason":"Removed","state":"Closed",' +
        '"tunnel":"node-17","tenant":"acme","cluster":"eu-1","node":"node-17",' +
        '"reporter":{"cluster":"edge","id":"responder-0"},"createdAt":"2026-11-23T05:00:00.123456Z",' +
        '"upSeconds":601.026,"seq":4,"replica":"operator-0-0a1b2c3d","namespace":"tunnels",' +
        '"object":"node-17-the2rz0rcb0vk"}\n',
    );
  });

  it('omits createdAt and upSeconds if they are not known', () => {
    const line = transitionLine(
      PROCESS,
      transition({ tunnel: tunnel('node-1', { createdAt: undefined }), upMs: undefined }),
    );
    expect(JSON.parse(line)).to.not.have.any.keys('createdAt', 'upSeconds');
  });

  const texts: readonly (readonly [string, string])[] = [
    ['quotes', 'a","reason":"Connected","x":"'],
    ['backslashes', String.raw`a\"\n`],
    ['a line feed, which no valid name contains', 'a\n{"log":"tunnel"}'],
    ['other control characters', '\0\r\u0085\u2028\u2029\u001b[31m'],
    ['half a surrogate pair', 'a\ud83d'],
  ];
  for (const [what, text] of texts) {
    it(`is one line and contains the values as they are, with ${what}`, () => {
      const line = transitionLine(PROCESS, transition({ tunnel: tunnel(text, { tenantID: text }) }));
      expect(line.slice(0, -1)).to.not.match(/[\n\r]/);
      expect(line.endsWith('\n')).to.equal(true);
      expect(JSON.parse(Buffer.from(line).toString())).to.include({
        tunnel: text,
        tenant: text,
        reason: 'Removed',
      });
    });
  }

  it('has at most 8,192 bytes, even if every value has its maximum length', () => {
    const longest = (length: number): string => '\u{1f310}'.repeat(length);
    const tenantID = longest(128);
    const line = transitionLine(
      { namespace: 'n'.repeat(63), replica: 'r'.repeat(253 + 9) },
      transition({
        reason: 'AbsentFromFullPush',
        tunnel: {
          name: longest(512),
          tenantID,
          clusterID: `${tenantID}:${longest(128)}`,
          nodeID: `${tenantID}:${longest(128)}`,
          createdAt: '2026-11-23T05:00:00.123456789Z',
        },
        reporter: { cluster: longest(256), id: longest(256) },
        objectName: names.tunnelObjectName(RESPONDER, tunnel(longest(512), { nodeID: 'n'.repeat(128) })),
        upMs: 999_999_999_999,
        sequence: Number.MAX_SAFE_INTEGER,
      }),
    );
    expect(Buffer.byteLength(line)).to.be.within(6000, 8192);
  });

  it('has a reason that docs/tunnel-log.md describes, and no other', () => {
    const page = pages().find(({ path }) => path === 'docs/tunnel-log.md');
    const [, reasons = ''] = /### Reasons\n([^]*?)\n### /.exec(page?.text ?? '') ?? [];
    const documented = [...reasons.matchAll(/^\| `(\w+)`/gm)].map(([, reason]) => String(reason));
    expect(documented.toSorted()).to.deep.equal([...TRANSITION_REASONS].toSorted());
  });
});

describe('the rate of the tunnel log', () => {
  const clock = new FakeClock();
  const metrics = createMetrics();
  const folder = mkdtempSync(join(tmpdir(), 'reverse-tunnel-log-'));
  after(() => rmSync(folder, { recursive: true }));

  async function lines(outcome: string): Promise<number> {
    const { values } = await metrics.tunnelLogLines.get();
    return values.find(({ labels }) => labels.outcome === outcome)?.value ?? 0;
  }

  it('is 5,000 lines per second after a burst of 20,000; others are counted by the metric and by a line', async () => {
    const target = join(folder, 'tunnels.jsonl');
    const options = { ...PROCESS, target, clock, metrics, log: pino({ level: 'silent' }) };
    const log: TunnelLog = await openTunnelLog(options);
    const writeMany = (count: number): void => {
      for (let index = 0; index < count; index += 1) log.write(transition());
    };
    writeMany(20_100);
    expect(await lines('rate_limited')).to.equal(100);
    clock.advance(1000);
    // With the number of dropped lines.
    await eventually('the burst in the file', async () => (await lines('written')) === 20_001);
    writeMany(5050);
    expect(await lines('rate_limited')).to.equal(150);
    await log.close();
    const dropped = readFileSync(target, 'utf8')
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { readonly dropped?: number }).dropped);
    expect(dropped.filter((count) => count !== undefined)).to.deep.equal([100, 50]);
    expect(dropped).to.have.length(25_002);
    expect(await lines('written')).to.equal(25_002);
    expect(await lines('buffer_full')).to.equal(0);
  });

  it('leaves no timer behind for lines that follow the end of the log', async () => {
    for (const count of [1, 20_001]) {
      const target = join(folder, 'closed.jsonl');
      const ownClock = new FakeClock();
      const options = { ...PROCESS, target, clock: ownClock, metrics, log: pino({ level: 'silent' }) };
      const log = await openTunnelLog(options);
      await log.close();
      const before = await lines('buffer_full');
      for (let index = 0; index < count; index += 1) log.write(transition());
      expect(ownClock.pendingTimersMs).to.deep.equal([]);
      expect((await lines('buffer_full')) - before, 'is counted').to.equal(Math.min(count, 20_000));
    }
  });
});
