/** What all attacks are made of: rounds on connections of their own, again and again until told to stop. */
import { setTimeout as delay } from 'node:timers/promises';
import { openRawPeer, type RawPeer } from '../raw-http2.ts';

/** So long a round may go on without an end of its own: a server that reads no further need not say so. */
const ROUND_TIMEOUT_MS = 3000;
/** Between two rounds, so that an attack that is cut at once is no test of how fast connections can be made. */
const PAUSE_MS = 5;
const MAX_ROUNDS = 500;

/** An attack on a server of which only the address is known. */
export interface Attack {
  /** What the attacker does, to stand in a sentence. */
  readonly name: string;
  /** What the server counts it as; undefined where HTTP/2 or gRPC turns it away, or nothing is wrong with it. */
  readonly rejectedAs?: string;
  /** One go. Peers that are opened through `open` are closed when it is over. */
  readonly round: (open: OpenPeer) => Promise<void>;
}

/** Opens a connection, with preface and SETTINGS unless it is said otherwise. */
export type OpenPeer = (greet?: boolean) => Promise<RawPeer>;

/** Attacks until told to stop; resolves with the rounds that were begun. */
export async function runAttack(address: string, { round }: Attack, until: AbortSignal): Promise<number> {
  let rounds = 0;
  while (!until.aborted && rounds < MAX_ROUNDS) {
    rounds += 1;
    await runRound(address, round, until);
    await delay(PAUSE_MS);
  }
  return rounds;
}

/** One round, cut short when it takes longer than `mostMs`, 3 s by default, or is told to stop. */
export async function runRound(
  address: string,
  round: Attack['round'],
  until: AbortSignal,
  timeoutMs = ROUND_TIMEOUT_MS,
): Promise<void> {
  const peers: RawPeer[] = [];
  const roundEnded = new AbortController();
  const stopped = delay(timeoutMs, undefined, { signal: AbortSignal.any([until, roundEnded.signal]) }).catch(
    () => {},
  );
  const running = round(async (greet) => {
    const peer = await openRawPeer(address, greet);
    peers.push(peer);
    // The round was given up while this connection was made.
    if (roundEnded.signal.aborted) peer.destroy();
    return peer;
  });
  // A server that refuses connections refuses this one too; that is for the caller to judge.
  await Promise.race([running.catch(() => {}), stopped]);
  roundEnded.abort();
  for (const peer of peers) peer.destroy();
  await running.catch(() => {});
}

/** Writes the same bytes over and over, at most so many times; ends when the server ends the connection. */
export async function writeRepeatedly(peer: RawPeer, bytes: Buffer, times: number): Promise<void> {
  for (let i = 0; i < times && (await peer.write(bytes)); i += 1);
}

/** As many times the same, in one buffer. */
export function repeat(count: number, bytes: Buffer): Buffer {
  return Buffer.concat(Array.from({ length: count }, () => bytes));
}
