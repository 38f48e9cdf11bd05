import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { expect } from 'chai';
import { runSimulate } from '../../src/simulate/simulate.ts';
import { eventually } from '../support/eventually.ts';
import { ack, startRecordingServer, type RecordingServer } from '../support/recording-server.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const COMMAND =
  "process.exitCode = await (await import('./src/simulate/simulate.ts')).runSimulate(process.argv.slice(1));";

const running = new Set<ChildProcess>();

/** Runs `simulate` as a child process, which ends by itself only if no handle remains. */
function simulate(commandLine: string) {
  const child = spawn(
    process.execPath,
    ['--input-type=module', '--eval', COMMAND, '--', ...commandLine.split(' ')],
    { cwd: ROOT },
  );
  running.add(child);
  child.once('close', () => running.delete(child));
  const printed = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (printed.out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (printed.err += text));
  return {
    child,
    printed,
    async ended(): Promise<{ code: number | null; out: string; err: string }> {
      const [code] = (await once(child, 'close')) as [number | null];
      return { code, ...printed };
    },
  };
}

/** Runs `simulate` in this process, with a terminal of this width or without one. */
function simulateHere(commandLine: string, columns: number | undefined) {
  const printed = { out: '', err: '' };
  const interrupted = new AbortController();
  const code = runSimulate(commandLine.split(' '), {
    out: (text) => void (printed.out += text),
    err: (text) => void (printed.err += text),
    canRedraw: false,
    errColumns: () => columns,
    interrupted: interrupted.signal,
  });
  return { code, printed, interrupt: () => interrupted.abort() };
}

describe('simulate command', () => {
  let server: RecordingServer;

  beforeEach(async () => {
    server = await startRecordingServer();
  });

  afterEach(() => {
    server.stop();
    // Empty unless a test has failed.
    for (const child of running) child.kill('SIGKILL');
  });

  it('reports for the given duration, prints a summary and exits with 0', async () => {
    const { code, out, err } = await simulate(
      `--address ${server.address} --reporters 3 --tunnels 7 --duration 4s --interval 1s --churn 20`,
    ).ended();
    expect(code).to.equal(0);
    expect(out).to.match(/^reporters connected +3 of 3$/m);
    expect(out).to.match(/^tunnels +21$/m);
    expect(out).to.match(/^reports +\d+ \(3 full, \d+ delta, \d+ heartbeat\)$/m);
    expect(out).to.match(/^ACKs out of order +0$/m);
    expect(out).to.match(/^disconnects +0$/m);
    expect(out).to.match(/^ACK p50, p99, max +\d+\.\d ms, \d+\.\d ms, \d+\.\d ms$/m);
    expect(err).to.equal('');
    expect([...server.held.keys()]).to.have.members(['responder-0', 'responder-1', 'responder-2']);
  });

  it('runs until it is interrupted if there is no duration, and prints a summary', async () => {
    const run = simulate(`--address ${server.address} --reporters 1 --interval 250ms`);
    // The first ACK precedes the fifth report.
    await eventually('the fifth report', () => (server.streams[0]?.reports.length ?? 0) >= 5);
    run.child.kill('SIGINT');
    const { code, out } = await run.ended();
    expect(code).to.equal(0);
    expect(out).to.match(/^reporters connected +1 of 1$/m);
  });

  it('reports once that the service is unreachable, and exits with 1', async () => {
    server.stop();
    const { code, out, err } = await simulate(`--address ${server.address} --duration 1s`).ended();
    expect(code).to.equal(1);
    expect(err).to.equal(
      `simulate: cannot report to ${server.address} (ECONNREFUSED); each reporter retries every 5s\n`,
    );
    expect(out).to.match(/^reporters connected +0 of 10$/m);
  });

  it('shows the message of a NACK and exits with 1', async () => {
    server.respond = (report) => ({
      ...ack(report),
      error_detail: { code: 3, message: 'node.id: not wanted here' },
    });
    const { code, out, err } = await simulate(
      `--address ${server.address} --reporters 2 --duration 3s`,
    ).ended();
    expect(code).to.equal(1);
    expect(err).to.include('(nack_received: node.id: not wanted here)');
    expect(out).to.match(/^NACKs +2$/m);
  });

  it('exits with 1 after an out-of-order ACK', async () => {
    server.respond = (report) => (report.nonce === 2n ? { request_nonce: '1' } : ack(report));
    const { code, out } = await simulate(
      `--address ${server.address} --reporters 1 --duration 3s --interval 500ms`,
    ).ended();
    expect(code).to.equal(1);
    expect(out).to.match(/^reporters connected +1 of 1$/m);
    expect(out).to.match(/^ACKs out of order +1$/m);
  });

  it('reports when the service becomes reachable, and shows progress periodically', async function () {
    this.timeout(120_000);
    server.stop();
    const run = simulateHere(`--address ${server.address} --reporters 2 --interval 50ms`, undefined);
    await eventually('a message that the service is unreachable', () =>
      run.printed.err.includes('cannot report'),
    );
    server = await startRecordingServer(Number(server.address.split(':')[1]));
    await eventually('a message that the service is reachable', () =>
      run.printed.err.includes('connected to'),
    );
    // The first ACK of each reporter precedes its fifth report.
    await eventually(
      'five reports of each reporter',
      () => server.streams.filter(({ reports }) => reports.length >= 5).length === 2,
    );
    await eventually('a line of progress', () => run.printed.err.includes('\nconnected '));
    run.interrupt();
    expect(await run.code).to.equal(0);
    expect(run.printed.err.split('\n')[0]).to.match(
      /^simulate: cannot report to 127\.0\.0\.1:\d+ \(ECONNREFUSED\)/,
    );
    expect(run.printed.err).to.include(`simulate: connected to ${server.address}\n`);
    expect(run.printed.err).to.match(
      /^connected [012]\/2 {2}tunnels 200 {2}reports \d+ {2}ACKs \d+ {2}reconnects 0 {2}ACK p99 \d+\.\d ms$/m,
    );
  });

  it('rewrites one line on a terminal, never wider than the terminal, and clears it at the end', async () => {
    const run = simulateHere(`--address ${server.address} --reporters 1 --interval 50ms`, 40);
    await eventually('three lines', () => run.printed.err.split('\r').length > 3);
    run.interrupt();
    expect(await run.code).to.equal(0);
    const [beforeFirst, ...lines] = run.printed.err.split('\r\u001B[2K');
    expect(beforeFirst).to.equal('');
    expect(lines.at(-1)).to.equal('');
    for (const line of lines.slice(0, -1)) expect(line).to.match(/^connected .{1,29}$/);
  });
});
