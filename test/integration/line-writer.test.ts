import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  constants,
  createReadStream,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { systemClock } from '../../src/clock.ts';
import { errorMessage } from '../../src/error-message.ts';
import { LineWriter } from '../../src/line-writer.ts';
import { eventually } from '../support/eventually.ts';

const DEADLINE_MS = 60_000;

describe('a line writer', () => {
  let folder: { readonly path: string; dispose(): Promise<void> };
  let open: LineWriter[] = [];
  before(async () => {
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-lines-');
  });
  afterEach(async () => {
    for (const writer of open.splice(0)) await writer.close();
  });
  after(() => folder?.dispose());

  async function openWriter(target: string) {
    const failures: string[] = [];
    let written = 0;
    let recovered = 0;
    const writer = await LineWriter.open({
      target,
      clock: systemClock,
      onWritten: (lines) => (written += lines),
      onFailure: (error) => failures.push(errorMessage(error)),
      onRecovery: () => (recovered += 1),
    });
    open.push(writer);
    return {
      writer,
      failures,
      recovered: () => recovered,
      waitUntilWritten: (lines: number) => eventually(`${lines} lines`, () => written === lines, DEADLINE_MS),
    };
  }

  const path = (name: string): string => join(folder.path, name);
  const read = (name: string): string => readFileSync(path(name), 'utf8');

  it('appends lines to a file that is not readable by others', async () => {
    const first = await openWriter(path('appended'));
    for (const line of ['a\n', 'é\n', 'c\n']) expect(first.writer.write(line)).to.equal(true);
    expect(await first.writer.close()).to.equal(0);
    const second = await openWriter(path('appended'));
    second.writer.write('d\n');
    await second.waitUntilWritten(1);
    expect(read('appended')).to.equal('a\né\nc\nd\n');
    expect(statSync(path('appended')).mode & 0o007).to.equal(0);
  });

  const unusable: readonly (readonly [string, () => string, RegExp])[] = [
    ['a directory', () => folder.path, /^EISDIR: illegal operation on a directory, open/],
    ['a path below a file', () => join(path('appended'), 'x'), /^ENOTDIR: not a directory, open/],
    ['a path in a missing directory', () => path('missing/x'), /^ENOENT: no such file or directory, open/],
    ['a name that is too long', () => path('x'.repeat(300)), /^ENAMETOOLONG: name too long, open/],
    ['a path with a NUL', () => path('a\0b'), /without null bytes/],
    ['a read-only file system', () => '/proc/tunnels', /^(ENOENT|EACCES|EPERM|EROFS): .*, open/],
  ];
  for (const [what, target, message] of unusable) {
    it(`rejects ${what}`, async () => {
      const error = await openWriter(target()).catch((reason: unknown) => reason);
      expect(errorMessage(error)).to.match(message);
    });
  }

  it('rejects a path without permission', async () => {
    mkdirSync(path('closed'));
    chmodSync(path('closed'), 0);
    // Root may write everywhere, so the check needs another user.
    const program = `
      import { systemClock } from ${JSON.stringify(new URL('../../src/clock.ts', import.meta.url).href)};
      import { LineWriter } from ${JSON.stringify(new URL('../../src/line-writer.ts', import.meta.url).href)};
      if (process.getuid() === 0) { process.setgid(65534); process.setuid(65534); }
      const options = { target: ${JSON.stringify(path('closed/x'))}, clock: systemClock };
      await LineWriter.open(options).catch((error) => console.log(error.code));
    `;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    expect(output.trim()).to.equal('EACCES');
    chmodSync(path('closed'), 0o700);
  });

  it('keeps lines while the disk is full, up to the size of its buffer', async () => {
    const { writer, failures } = await openWriter('/dev/full');
    const line = `${'x'.repeat(1023)}\n`;
    let accepted = 0;
    while (writer.write(line)) accepted += 1;
    expect(accepted).to.equal(8 * 1024);
    await eventually('a failure', () => failures.length > 0, DEADLINE_MS);
    expect(failures[0]).to.include('ENOSPC');
    expect(writer.write(line)).to.equal(false);
    expect(await writer.close()).to.equal(accepted);
  });

  it('continues within a line when a file can grow again, and starts a line again in another file', async () => {
    // A limit of the process stands for a full disk. Bash ignores the signal that would end the process.
    const program = `
      import { spawnSync } from 'node:child_process';
      import { renameSync } from 'node:fs';
      import { systemClock } from ${JSON.stringify(new URL('../../src/clock.ts', import.meta.url).href)};
      import { LineWriter } from ${JSON.stringify(new URL('../../src/line-writer.ts', import.meta.url).href)};
      const [target, rotate] = process.argv.slice(1);
      let failures = 0;
      const writer = await LineWriter.open({
        target,
        clock: systemClock,
        onWritten: () => {},
        onFailure() {
          failures += 1;
          if (failures < 2) return;
          if (rotate === 'rotate') renameSync(target, target + '.1');
          spawnSync('prlimit', ['--pid', String(process.pid), '--fsize=unlimited']);
        },
        onRecovery: () => void writer.close(),
      });
      for (let i = 0; i < 120; i += 1) writer.write(JSON.stringify({ i, text: 'x'.repeat(300) }) + '\\n');
    `;
    const indexes = (text: string): number[] =>
      text
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { readonly i: number }).i);
    const script = `trap '' XFSZ; ulimit -S -f 10; exec "$0" --input-type=module -e "$@"`;
    for (const how of ['continue', 'rotate']) {
      // Without prlimit the disk would stay full forever.
      execFileSync('bash', ['-c', script, process.execPath, program, path(`limited-${how}`), how], {
        timeout: DEADLINE_MS,
      });
    }
    const all = Array.from({ length: 120 }, (_, index) => index);
    expect(indexes(read('limited-continue'))).to.deep.equal(all);
    const first = read('limited-rotate.1').split('\n').slice(0, -1).join('\n');
    expect([...indexes(first), ...indexes(read('limited-rotate'))]).to.deep.equal(all);
  });

  it('opens a FIFO without a reader, and writes to it once there is one', async () => {
    execFileSync('mkfifo', [path('fifo')]);
    const { writer, failures, recovered, waitUntilWritten } = await openWriter(path('fifo'));
    expect(failures.join()).to.include('ENXIO');
    writer.write('a\n');
    await eventually('a second attempt', () => failures.length > 1, DEADLINE_MS);
    let received = '';
    const reader = createReadStream(path('fifo'), { encoding: 'utf8' });
    reader.on('data', (text) => (received += String(text)));
    await waitUntilWritten(1);
    await eventually('the line', () => received === 'a\n', DEADLINE_MS);
    expect(recovered()).to.equal(1);
    reader.destroy();
  });

  it('does not wait for the reader of a FIFO that does not read', async () => {
    execFileSync('mkfifo', [path('slow')]);
    const reader = openSync(path('slow'), constants.O_RDONLY | constants.O_NONBLOCK);
    const { writer, failures } = await openWriter(path('slow'));
    const line = `${'x'.repeat(1023)}\n`;
    let accepted = 0;
    while (writer.write(line)) accepted += 1;
    expect(accepted).to.equal(8 * 1024);
    // The pipe takes 64 KiB.
    await eventually('room in the buffer', () => writer.write(line), DEADLINE_MS);
    await writer.close();
    expect(failures).to.deep.equal([]);
    closeSync(reader);
  });

  const rotations: readonly (readonly [string, (name: string) => void, string])[] = [
    ['renamed', (name) => renameSync(path(name), path(`${name}.1`)), 'b\n'],
    ['deleted', (name) => unlinkSync(path(name)), 'b\n'],
    ['copied and truncated', (name) => truncateSync(path(name)), 'b\n'],
  ];
  for (const [how, rotate, content] of rotations) {
    it(`continues under its path after the file was ${how}`, async () => {
      const name = `rotated-${how.split(' ')[0]}`;
      const { writer, waitUntilWritten } = await openWriter(path(name));
      writer.write('a\n');
      await waitUntilWritten(1);
      rotate(name);
      let lines = 1;
      // Noticed at most a second later.
      await eventually(
        'the line in the new file',
        async () => {
          writer.write('b\n');
          lines += 1;
          await waitUntilWritten(lines);
          return statSync(path(name), { throwIfNoEntry: false }) !== undefined;
        },
        DEADLINE_MS,
      );
      expect(read(name).startsWith(content)).to.equal(true);
    });
  }

  it('writes whole lines to a pipe that a stuck reader shares with other writers, and the process still exits', async () => {
    const program = `
      import { existsSync, writeSync } from 'node:fs';
      import { systemClock } from ${JSON.stringify(new URL('../../src/clock.ts', import.meta.url).href)};
      import { LineWriter } from ${JSON.stringify(new URL('../../src/line-writer.ts', import.meta.url).href)};
      const ignore = () => {};
      const options = { target: 'stdout', clock: systemClock, onWritten: ignore, onFailure: ignore, onRecovery: ignore };
      const writer = await LineWriter.open(options);
      for (let i = 0; i < 2000; i += 1) writer.write(JSON.stringify({ i, text: 'x'.repeat(200) }) + '\\n');
      const exit = () => { writeSync(2, 'exiting'); process.exit(0); };
      const poll = setInterval(() => {
        if (!existsSync(process.argv[1])) return;
        clearInterval(poll);
        setTimeout(exit, 300);
      }, 20);
    `;
    // A pipe of a shell, because Node's own pipes are sockets.
    // The process exits some time after its first line was read, when the pipe is full; the reader continues after that.
    const script = `
      { "$0" --input-type=module -e "$1" "$2"; code=$?; touch "$3"; exit "$code"; } |
        { read line; echo "$line"; touch "$2"; for i in {1..600}; do [ -e "$3" ] && break; sleep 0.1; done; cat; }`;
    const files = [path('first-line-read'), path('exited')];
    const child = spawn('bash', ['-o', 'pipefail', '-c', script, process.execPath, program, ...files]);
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).to.equal(0);
    const lines = output.trim().split('\n');
    expect(lines.length).to.be.within(2, 1999);
    for (const [index, line] of lines.entries())
      expect((JSON.parse(line) as { i: number }).i).to.equal(index);
  });
});
