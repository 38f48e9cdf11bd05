import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FaultFixture } from './fault-fixture.ts';

/** Writes what the operators have logged into a folder of its own, which stays: for whoever looks into a difference. */
export async function saveLogs({ replicas }: FaultFixture, name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `reverse-tunnel-faults-${name}-`));
  for (const { account, process: operator } of replicas.running) {
    const lines = operator.log.map((line) => JSON.stringify(line));
    await writeFile(join(folder, `${account}.log`), [...lines, operator.stderr].join('\n'));
  }
  return folder;
}
