import { expect } from 'chai';
import { pino } from 'pino';
import { AgentWarnings } from '../../src/agent/agent-warnings.ts';
import type { SkippedTunnel, SkipReason } from '../../src/agent/tunnel-tracker.ts';
import { FakeClock } from '../support/fake-clock.ts';

interface LoggedLine {
  readonly reason: string;
  readonly tunnels: number;
  readonly example: string;
  readonly hint: string;
}

describe('Tunnels that the agent cannot report', () => {
  let clock: FakeClock;
  let logged: LoggedLine[];

  beforeEach(() => {
    clock = new FakeClock();
    logged = [];
  });

  function createWarnings(followsLog: boolean): AgentWarnings {
    const log = pino({ base: null }, { write: (line) => void logged.push(JSON.parse(line) as LoggedLine) });
    return new AgentWarnings(log, clock, followsLog);
  }

  /** Returns the reasons that are logged within `seconds` of polls, one per second, that skip these tunnels. */
  function poll(warnings: AgentWarnings, seconds: number, ...skipped: readonly SkippedTunnel[]): string[] {
    const before = logged.length;
    for (let second = 0; second <= seconds; second += 1) {
      if (second > 0) clock.advance(1000);
      warnings.tunnelsSkipped(skipped);
    }
    return logged.slice(before).map(({ reason }) => reason);
  }

  const skip = (reason: SkipReason, gauge = 'eu-1:node-17'): SkippedTunnel => ({ gauge, reason });

  const allReasons = [
    'unknown_tenant',
    'several_tenants',
    'ambiguous_name',
    'malformed_name',
    'invalid_utf8',
    'duplicate_name',
  ] as const;
  for (const reason of allReasons) {
    it(`are logged immediately without a lifecycle log (${reason})`, () => {
      expect(poll(createWarnings(false), 0, skip(reason))).to.deep.equal([reason]);
    });
  }

  for (const [reason, remedy] of [
    ['unknown_tenant', 'set --default-tenant'],
    ['ambiguous_name', 'avoid ":" in the cluster and node IDs of initiators'],
  ] as const) {
    it(`are not logged while their line in the lifecycle log may still arrive (${reason})`, () => {
      const warnings = createWarnings(true);
      expect(poll(warnings, 14, skip(reason))).to.deep.equal([]);
      expect(poll(warnings, 0)).to.deep.equal([]);
      expect(poll(warnings, 14, skip(reason))).to.deep.equal([]);
    });

    it(`are logged once their line in the lifecycle log is overdue (${reason})`, () => {
      const warnings = createWarnings(true);
      expect(poll(warnings, 10, skip(reason))).to.deep.equal([]);
      const late = skip(reason, 'eu-1:node-18');
      expect(poll(warnings, 10, skip(reason), late)).to.deep.equal([reason]);
      expect(logged[0]).to.include({ tunnels: 1, example: 'eu-1:node-17' });
      expect(logged[0]?.hint)
        .to.match(/^the lifecycle log does not name it: /)
        .and.satisfy((hint: string) => hint.endsWith(`, or ${remedy}`));
    });
  }

  for (const reason of ['several_tenants', 'malformed_name', 'invalid_utf8', 'duplicate_name'] as const) {
    it(`are logged immediately if no line of the lifecycle log can complete them (${reason})`, () => {
      expect(poll(createWarnings(true), 0, skip(reason))).to.deep.equal([reason]);
    });
  }
});
