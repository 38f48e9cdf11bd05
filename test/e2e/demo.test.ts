/** The demo on a machine that has Node only: no kubectl, no Go, nothing cached, nothing to download. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { run } from '../../control-plane/run.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** The demo itself checks the objects after each step; this is far above the time that it takes. */
const DEADLINE_MS = 240_000;

describe('demo', () => {
  let home: string;
  /** The PATH: neither kubectl nor Go is found. */
  let emptyFolder: string;
  before(async () => {
    home = await mkdtemp(join(tmpdir(), 'reverse-tunnel-demo-'));
    emptyFolder = join(home, 'bin');
    await mkdir(emptyFolder);
  });
  after(() => rm(home, { recursive: true, force: true }));

  it('runs every step with the embedded API server where no control plane can be provided', async () => {
    const { code, stdout, stderr } = await run(
      process.execPath,
      ['--require', './demo/require-node.cjs', 'demo/main.ts', '--once'],
      {
        cwd: ROOT,
        env: { HOME: home, PATH: emptyFolder, ENVTEST_INDEX_URL: 'http://127.0.0.1:9/index.yaml' },
        timeoutMs: DEADLINE_MS,
      },
    );
    expect(code, stdout + stderr).to.equal(0);
    expect(stderr).to.equal('');
    const steps = stdout.split('\n').filter((line) => line.startsWith('✔'));
    expect(steps.map((line) => line.replace(/ \(\d+ ms\)$/, ''))).to.deep.equal(
      [100, 99, 100, 90, 90, 90].map(
        (count) => `✔ ${count} ReverseTunnels match the ${count} tunnels that are up`,
      ),
    );
    expect(stdout).to.include(`Node ${process.versions.node}`);
    expect(stdout).to.include('Using the embedded API server');
    expect(stdout).to.match(/NAME +TENANT +CLUSTER +NODE +REPORTER +STATE +UP +AGE\n/);
    expect(stdout).to.include('TUNNEL    REASON');
  });

  it('reports in one line which Node is required when an older one runs it', async () => {
    const asNode20 = "Object.defineProperty(process.versions, 'node', { value: '20.20.2' })";
    const preload = join(home, 'node-20.cjs');
    await writeFile(preload, asNode20);
    const { code, stdout, stderr } = await run(
      process.execPath,
      ['--require', preload, '--require', './demo/require-node.cjs', 'demo/main.ts', '--once'],
      { cwd: ROOT, env: { HOME: home, PATH: emptyFolder }, timeoutMs: DEADLINE_MS },
    );
    expect([code, stdout]).to.deep.equal([1, '']);
    expect(stderr).to.match(/^demo: Node 20\.20\.2 \(.*\) is too old: 24\.14\.1 is required, .*\n$/);
  });
});
