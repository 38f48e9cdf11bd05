/** Attacks: rounds on separate connections, repeated until they are stopped. */
import { setTimeout as delay } from 'node:timers/promises';
import { openRawPeer, type RawPeer } from './raw-http2.ts';

/** Maximum duration of a round; a server that stops reading need not close the connection. */
const ROUND_TIMEOUT_MS = 3000;
/**
 * Pause between rounds, so that an attack that is rejected immediately does not only measure the rate of new
 * connections.
 */
const PAUSE_MS = 5;
const MAX_ROUNDS = 500;

/** An attack on a server of which only the address is known. */
export interface Attack {
  /** What the attacker does, as a verb phrase. */
  readonly name: string;
  /**
   * The reason under which the server counts the rejection; undefined when HTTP/2 or gRPC rejects it, or when
   * nothing is wrong with it.
   */
  readonly rejectedAs?: string;
  /** Runs one round. Peers that were opened with `open` are closed afterwards. */
  readonly round: (open: OpenPeer) => Promise<void>;
}

/** Opens a connection; sends preface and SETTINGS unless `greet` is false. */
export type OpenPeer = (greet?: boolean) => Promise<RawPeer>;

/** Repeats an attack until aborted. Resolves with the number of rounds. */
export async function runAttack(address: string, { round }: Attack, until: AbortSignal): Promise<number> {
  let rounds = 0;
  while (!until.aborted && rounds < MAX_ROUNDS) {
    rounds += 1;
    await runRound(address, round, until);
    await delay(PAUSE_MS);
  }
  return rounds;
}

/** Runs one round until it ends, `timeoutMs` (3 s by default) has passed, or it is aborted. */
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
    // The round has ended while this connection was opened.
    if (roundEnded.signal.aborted) peer.destroy();
    return peer;
  });
  // A server that rejects connections also rejects this one; the caller checks the consequences.
  await Promise.race([running.catch(() => {}), stopped]);
  roundEnded.abort();
  for (const peer of peers) peer.destroy();
  await running.catch(() => {});
}

/** Writes the same bytes up to `times` times; ends when the server closes the connection. */
export async function writeRepeatedly(peer: RawPeer, bytes: Buffer, times: number): Promise<void> {
  for (let i = 0; i < times && (await peer.write(bytes)); i += 1);
}

export function repeat(count: number, bytes: Buffer): Buffer {
  return Buffer.concat(Array.from({ length: count }, () => bytes));
}
