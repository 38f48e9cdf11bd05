import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FaultFixture } from './fault-fixture.ts';

/** Writes the operators' logs into a folder that is kept, for the analysis of a failure. */
export async function saveLogs({ replicas }: FaultFixture, name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `reverse-tunnel-faults-${name}-`));
  for (const { account, process: operator } of replicas.running) {
    const lines = operator.log.map((line) => JSON.stringify(line));
    await writeFile(join(folder, `${account}.log`), [...lines, operator.stderr].join('\n'));
  }
  return folder;
}
