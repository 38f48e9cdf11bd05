import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { appendFile, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LogFollower, LogFollowerError } from '../../src/agent/log-follower.ts';

describe('The follower of a log file', () => {
  let folder: string;
  let path: string;
  let lines: string[];
  let follower: LogFollower;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'log-follower-'));
    path = join(folder, 'tunnels.log');
    lines = [];
    follower = new LogFollower(path, (line) => lines.push(line));
  });
  afterEach(async () => {
    await follower.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function rejection(): Promise<string> {
    try {
      await follower.read();
    } catch (error) {
      if (error instanceof LogFollowerError) return error.message;
      throw error;
    }
    throw new Error('read');
  }

  it('reads what is there, then what is added, and completes partial lines', async () => {
    await writeFile(path, 'one\ntw');
    await follower.read();
    expect(lines).to.deep.equal(['one']);
    await appendFile(path, 'o\nthree\n');
    await follower.read();
    expect(lines).to.deep.equal(['one', 'two', 'three']);
  });

  it('reads the old file to its end after a rotation, and the new one from its beginning', async () => {
    await writeFile(path, 'one\n');
    await follower.read();
    await appendFile(path, 'two\n');
    await rename(path, `${path}.1`);
    await writeFile(path, 'three\n');
    await follower.read();
    // Envoy writes to the old file until it reopens its logs.
    await appendFile(`${path}.1`, 'late\n');
    await follower.read();
    expect(lines).to.have.members(['one', 'two', 'three', 'late']).and.have.length(4);
  });

  it('starts again at the beginning of a file that was truncated', async () => {
    await writeFile(path, 'a long first line\n');
    await follower.read();
    await truncate(path);
    await appendFile(path, 'two\n');
    await follower.read();
    expect(lines).to.deep.equal(['a long first line', 'two']);
  });

  it('skips a line that is too long, and only that one', async () => {
    await writeFile(path, `${'x'.repeat(1_000_000)}\ntwo\n`);
    await follower.read();
    expect(lines).to.deep.equal(['two']);
  });

  it('names a file that is missing, and reads it once it exists', async () => {
    expect(await rejection())
      .to.include('ENOENT')
      .and.include(path);
    await writeFile(path, 'one\n');
    await follower.read();
    expect(lines).to.deep.equal(['one']);
  });

  it('rejects a FIFO instead of waiting for its writer', async () => {
    execFileSync('mkfifo', [path]);
    expect(await rejection()).to.equal(`read ${path}: not a regular file`);
  });

  it('reads everything again after a rewind', async () => {
    await writeFile(path, 'one\n');
    await follower.read();
    await follower.rewind();
    await follower.read();
    expect(lines).to.deep.equal(['one', 'one']);
  });
});
