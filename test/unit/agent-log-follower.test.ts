import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LogFollower, LogFollowerError } from '../../src/agent/log-follower.ts';

describe('The follower of a log file', () => {
  let folder: string;
  let path: string;
  let lines: string[];
  let skipped: number[];
  let follower: LogFollower;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'log-follower-'));
    path = join(folder, 'tunnels.log');
    lines = [];
    skipped = [];
    follower = new LogFollower(
      path,
      (line) => lines.push(line),
      (maxBytes) => skipped.push(maxBytes),
    );
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

  it('reads the renamed file until there is another one', async () => {
    await writeFile(path, 'one\n');
    await follower.read();
    await rename(path, `${path}.1`);
    await appendFile(`${path}.1`, 'two\n');
    await follower.read();
    await appendFile(`${path}.1`, 'three\n');
    await writeFile(path, 'four\n');
    await follower.read();
    expect(lines).to.deep.equal(['one', 'two', 'three', 'four']);
  });

  it('starts again at the beginning of a file that was truncated', async () => {
    await writeFile(path, 'a long first line\n');
    await follower.read();
    await truncate(path);
    await appendFile(path, 'two\n');
    await follower.read();
    expect(lines).to.deep.equal(['a long first line', 'two']);
  });

  /** What `copytruncate` of logrotate, or an editor, leaves behind. */
  const rewritten: Readonly<Record<string, string>> = {
    'is shorter': 'two\n',
    'has the same length': 'a long second lin\n',
    'is longer': 'two\nthree, which is a long line\nfour\n',
  };
  for (const [what, content] of Object.entries(rewritten)) {
    it(`starts again at the beginning of a file that was truncated and ${what} by the next read`, async () => {
      await writeFile(path, 'a long first line\n');
      await follower.read();
      await writeFile(path, content);
      await follower.read();
      await appendFile(path, 'last\n');
      await follower.read();
      expect(lines).to.deep.equal(['a long first line', ...content.trim().split('\n'), 'last']);
    });
  }

  it('forgets the beginning of a line whose rest was truncated', async () => {
    await writeFile(path, 'one\nhalf a li');
    await follower.read();
    await writeFile(path, 'a line of another content\n');
    await follower.read();
    expect(lines).to.deep.equal(['one', 'a line of another content']);
  });

  for (const length of [100_000, 1_000_000, 10_000_000]) {
    it(`skips a line of ${length} bytes, and only that one`, async () => {
      await writeFile(path, `one\n${'x'.repeat(length)}\ntwo\n`);
      await follower.read();
      expect(lines).to.deep.equal(['one', 'two']);
      expect(skipped).to.deep.equal([64 * 1024]);
    });
  }

  it('reads on after bytes that are not UTF-8', async () => {
    await writeFile(path, Buffer.from([0x6f, 0xff, 0xfe, 0x00, 0x0a, 0x74, 0x77, 0x6f, 0x0a]));
    await follower.read();
    expect(lines).to.have.length(2);
    expect(lines[1]).to.equal('two');
  });

  it('follows a link to the file that it names', async () => {
    await writeFile(`${path}.1`, 'one\n');
    await symlink(`${path}.1`, path);
    await follower.read();
    await rm(path);
    await writeFile(`${path}.2`, 'two\n');
    await symlink(`${path}.2`, path);
    await follower.read();
    expect(lines).to.deep.equal(['one', 'two']);
  });

  it('names a file that cannot be read', async () => {
    await mkdir(path);
    expect(await rejection()).to.equal(`read ${path}: not a regular file`);
    await rm(path, { recursive: true });
    await symlink(path, path);
    expect(await rejection())
      .to.include('ELOOP')
      .and.include(path);
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
