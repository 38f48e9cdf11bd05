/**
 * The fleet of `simulate`, with its flags, that prints a line when a reporter connects (its stream was ACKed) or
 * disconnects: `ID connected MS`, with the time since it was connected before (0: never), or `ID disconnected`.
 */
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { parseCommand } from '../../src/simulate/command-options.ts';
import { createFleet } from '../../src/simulate/fleet.ts';

const POLL_MS = 20;
const RAMP_UP_MS = 1000;

const parsed = parseCommand(process.argv.slice(2));
if (!('options' in parsed)) throw new Error(JSON.stringify(parsed));
const { options } = parsed;
const identity = reporterIdentity(options.identity);
const fleet = createFleet(
  { ...options, churnPerSecond: options.churn, flapsPerSecond: options.flap, rampUpMs: RAMP_UP_MS },
  identity === undefined ? {} : { dial: (address) => dialReportingService({ address, identity }) },
);
const disconnectedMs = new Map<string, number>();
const connected = new Set<string>();

function observe(): void {
  for (const reporter of fleet.reporters) {
    const { id } = reporter.id;
    const isConnected = reporter.connected();
    if (isConnected === connected.has(id)) continue;
    if (isConnected) {
      const since = disconnectedMs.get(id);
      const passedMs = since === undefined ? 0 : Math.round(performance.now() - since);
      connected.add(id);
      process.stdout.write(`${id} connected ${passedMs}\n`);
    } else {
      connected.delete(id);
      disconnectedMs.set(id, performance.now());
      process.stdout.write(`${id} disconnected\n`);
    }
  }
}

await fleet.start();
setInterval(observe, POLL_MS);
