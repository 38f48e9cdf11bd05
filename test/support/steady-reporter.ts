/** A well-behaved reporter: it sends a report, waits for its ACK, and sends the next one. */
import { setTimeout as delay } from 'node:timers/promises';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { eventually } from './eventually.ts';

/** A well-behaved reporter during an attack, whose ACK latency shows the effect on others. */
export type SteadyReporter = Awaited<ReturnType<typeof startSteadyReporter>>;

/** Opens a stream on a connection of its own and waits for the first ACK. */
export async function startSteadyReporter(address: string, { id = 'steady', pauseMs = 1 } = {}) {
  const connection = dialReportingService({ address });
  const node = { id, cluster: 'edge' };
  const ackMs: number[] = [];
  let endReason: string | undefined;
  let closed = false;
  let nonce = 0n;
  let sentMs = 0;
  const stream = connection.openStream({
    onResponse({ requestNonce }) {
      if (requestNonce !== nonce) endReason = `nonce ${requestNonce} instead of ${nonce}`;
      ackMs.push(performance.now() - sentMs);
      void delay(pauseMs).then(send);
    },
    onEnd({ code, message }) {
      endReason ??= `${code} ${message}`;
    },
  });
  function send(): void {
    if (closed || endReason !== undefined) return;
    nonce += 1n;
    sentMs = performance.now();
    stream.send({ node, added: [], removedNames: [], fullPush: false, nonce });
  }
  const waitForAcks = async (count: number): Promise<void> => {
    const target = ackMs.length + count;
    await eventually(`${count} ACKs`, () => endReason !== undefined || ackMs.length >= target, 30_000);
    if (endReason !== undefined) throw new Error(`the steady stream ended: ${endReason}`);
  };
  send();
  await waitForAcks(1);
  return {
    /** ACK latencies in the order of the reports, ms. */
    ackMs,
    /** Why the stream has ended, which must not happen. */
    get endReason() {
      return endReason;
    },
    /** Waits for `count` more ACKs; rejects when the stream ends. */
    waitForAcks,
    async [Symbol.asyncDispose]() {
      closed = true;
      connection.close();
    },
  };
}
