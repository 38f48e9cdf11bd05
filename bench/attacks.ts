/**
 * `npm run attacks [-- WORD ...]`: runs the attacks of the tests whose name contains a WORD, each for 3 s, against a reporting
 * server in a separate process, while a steady reporter sends one report after another. Prints the memory of the server
 * and the ACK latency of the steady reporter, compared to a run without an attack.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { endWithUsage, parseFlags, type CommandDescription } from '../src/flags.ts';
import { ATTACKS } from '../test/integration/attacks/all.ts';
import type { Attack } from '../test/support/attack.ts';
import { startSteadyReporter, type SteadyReporter } from '../test/support/steady-reporter.ts';
import { startVictim, type Victim } from '../test/support/victim-process.ts';
import { startChild } from './child.ts';
import type { Attacker } from './attacker-process.ts';

const ATTACK_MS = 3000;
const WARM_UP_MS = 1500;
/** Short, so that idle connections are closed within an attack. */
const LIMITS = { handshakeTimeoutMs: 1000 };
const MIB = 1024 * 1024;

type AttackerChild = ReturnType<typeof startChild<Attacker>>;

const HEADER = [
  'attack',
  'rounds',
  'rejected',
  'ACKs',
  'p50 ms',
  'p99 ms',
  'max ms',
  'RSS +MiB',
  'kept +MiB',
];

const COMMAND = {
  usage: ['npm run attacks [-- WORD ...]'],
  description: 'Measures how attacks affect a server and a steady reporter. Each attack takes 5 s.',
  operand: { metavar: 'WORD', description: 'run only the attacks whose name contains WORD' },
  flags: {},
  footer: 'Exit code: 0, 1 when an attack could not run, 2 for a usage error.\n',
} as const satisfies CommandDescription;

const parsed = parseFlags(COMMAND, process.argv.slice(2));
if ('values' in parsed) await runAttacks(parsed.operands);
else process.exitCode = endWithUsage('attacks', parsed);

async function runAttacks(words: readonly string[]): Promise<void> {
  await using attacker = startChild<Attacker>(new URL('attacker-process.ts', import.meta.url));
  const rows = [HEADER, await measured(attacker, undefined)];
  const isSelected = ({ name }: Attack): boolean =>
    words.length === 0 || words.some((word) => name.includes(word));
  for (const attack of ATTACKS.filter(isSelected)) {
    rows.push(await measured(attacker, attack));
    console.error(`${rows.length - 2} ${attack.name}`);
  }
  const widths = HEADER.map((_, column) => Math.max(...rows.map((cells) => (cells[column] ?? '').length)));
  for (const cells of rows) {
    console.log(
      cells
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join('  '),
    );
  }
}

/** Returns a line of the table; without an attack, the one of the baseline run. */
async function measured(attacker: AttackerChild, attack: Attack | undefined): Promise<string[]> {
  await using victim = await startVictim({ limits: LIMITS });
  await using steady = await startSteadyReporter(victim.address);
  await delay(WARM_UP_MS);
  const before = await victim.state();
  const first = steady.ackMs.length;
  const rounds = attack === undefined ? await runIdle() : await runUnderAttack(attacker, attack, victim);
  const acks = steady.ackMs.slice(first).toSorted((a, b) => a - b);
  await waitUntilResponsive(steady);
  const after = await victim.state();
  const at = (share: number): string => (acks[Math.ceil(acks.length * share) - 1] ?? NaN).toFixed(1);
  return [
    attack?.name ?? '(none)',
    String(rounds),
    Object.entries(after.rejected)
      .map(([reason, times]) => `${reason} ${times}`)
      .join(', '),
    String(acks.length),
    ...[at(0.5), at(0.99), at(1)],
    ((after.peakResidentBytes - before.residentBytes) / MIB).toFixed(0),
    ((after.usedBytes - before.usedBytes) / MIB).toFixed(0),
  ];
}

async function runIdle(): Promise<number> {
  await delay(ATTACK_MS);
  return 0;
}

function runUnderAttack(attacker: AttackerChild, { name }: Attack, { address }: Victim): Promise<number> {
  return attacker.ask('run', { address, name, ms: ATTACK_MS });
}

/** Waits until the server sends ACKs without delay again. */
async function waitUntilResponsive(steady: SteadyReporter): Promise<void> {
  await steady.waitForAcks(50);
}
