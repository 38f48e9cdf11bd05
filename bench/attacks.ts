/**
 * `npm run attacks [-- WORD]`: each attack of the tests (those whose name has WORD in it) for some seconds against a
 * reporting server in a process of its own, while a reporter that behaves sends one report after the other. Prints what
 * the attack makes the server hold and how long the ACKs of the other take, beside a calm run.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { ATTACKS } from '../test/support/attacks/all.ts';
import type { Attack } from '../test/support/attacks/attack.ts';
import { startSteadyReporter, type SteadyReporter } from '../test/support/attacks/steady-reporter.ts';
import { startVictim, type Victim } from '../test/support/attacks/victim-process.ts';
import { startChild } from './child.ts';
import type { Attacker } from './attacker-process.ts';

const ATTACK_MS = 3000;
const WARM_UP_MS = 1500;
/** Short, so that silent connections are seen to be closed within an attack. */
const LIMITS = { handshakeTimeoutMs: 1000 };
const MIB = 1024 * 1024;
const HEADER = ['attack', 'rounds', 'refused', 'ACKs', 'p50 ms', 'p99 ms', 'worst', 'RSS +MiB', 'left +MiB'];

const word = process.argv[2] ?? '';
await using attacker = startChild<Attacker>(new URL('attacker-process.ts', import.meta.url));
const rows = [HEADER, await measured(undefined)];
for (const attack of ATTACKS.filter(({ name }) => name.includes(word))) {
  rows.push(await measured(attack));
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

/** A row of the table; without an attack it is the calm run. */
async function measured(attack: Attack | undefined): Promise<string[]> {
  await using victim = await startVictim({ limits: LIMITS });
  await using steady = await startSteadyReporter(victim.address);
  await delay(WARM_UP_MS);
  const before = await victim.state();
  const first = steady.ackMs.length;
  const rounds = attack === undefined ? await runIdle() : await runUnderAttack(attack, victim);
  const acks = steady.ackMs.slice(first).toSorted((a, b) => a - b);
  await waitUntilResponsive(steady);
  const after = await victim.state();
  const at = (share: number): string => (acks[Math.ceil(acks.length * share) - 1] ?? NaN).toFixed(1);
  return [
    attack?.name ?? '(calm)',
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

function runUnderAttack({ name }: Attack, { address }: Victim): Promise<number> {
  return attacker.ask('run', { address, name, ms: ATTACK_MS });
}

/** Until the server has time for its ACKs again. */
async function waitUntilResponsive(steady: SteadyReporter): Promise<void> {
  await steady.waitForAcks(50);
}
