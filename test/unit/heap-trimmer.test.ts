import { spawnSync } from 'node:child_process';
import { getHeapSpaceStatistics } from 'node:v8';
import { expect } from 'chai';
import { startHeapTrimmer, v8Heap } from '../../src/heap-trimmer.ts';
import { FakeClock } from '../support/fake-clock.ts';

const MIB = 1024 * 1024;

describe('the heap at rest', () => {
  let clock: FakeClock;
  let committedMiB: number;
  let isIdle: boolean;
  let favoursMemory: boolean;
  let end: () => void;

  beforeEach(() => {
    clock = new FakeClock();
    committedMiB = 35;
    isIdle = true;
    favoursMemory = false;
    end = startHeapTrimmer({
      heap: {
        committedBytes: () => committedMiB * MIB,
        setMemorySaver(on) {
          favoursMemory = on;
        },
      },
      isIdle: () => isIdle,
      clock,
    });
  });

  it('a burst is over for two looks: V8 is to favour memory, for 10 s', () => {
    isIdle = false;
    committedMiB = 140;
    clock.advance(60_000);
    expect(favoursMemory, 'under work').to.equal(false);
    isIdle = true;
    clock.advance(2000);
    expect(favoursMemory, 'after one look').to.equal(false);
    clock.advance(2000);
    expect(favoursMemory, 'after two').to.equal(true);
    committedMiB = 60;
    clock.advance(9999);
    expect(favoursMemory).to.equal(true);
    clock.advance(1);
    expect(favoursMemory).to.equal(false);
    committedMiB = 60 + 23;
    clock.advance(60_000);
    expect(favoursMemory, 'what comes and goes').to.equal(false);
    committedMiB = 60 + 24;
    clock.advance(4000);
    expect(favoursMemory, 'the next burst').to.equal(true);
  });

  it('nothing could be given back: not asked for again and again', () => {
    committedMiB = 140;
    clock.advance(4000);
    expect(favoursMemory).to.equal(true);
    clock.advance(10_000);
    let asked = 0;
    for (let look = 0; look < 100; look += 1) {
      clock.advance(2000);
      if (favoursMemory) asked += 1;
    }
    expect(asked).to.equal(0);
  });

  it('work comes meanwhile: V8 goes on as by itself, and is asked again when it is done', () => {
    committedMiB = 140;
    clock.advance(4000);
    isIdle = false;
    clock.advance(2000);
    expect(favoursMemory).to.equal(false);
    clock.advance(30_000);
    isIdle = true;
    clock.advance(4000);
    expect(favoursMemory).to.equal(true);
  });

  it('ended: as V8 has it by itself, and no timer is left', () => {
    committedMiB = 140;
    clock.advance(4000);
    end();
    expect(favoursMemory).to.equal(false);
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('the young generation is not counted: it comes and goes', () => {
    const spaces = getHeapSpaceStatistics();
    const total = spaces.reduce((sum, { space_size: bytes }) => sum + bytes, 0);
    const young = spaces.find(({ space_name: name }) => name === 'new_space')?.space_size ?? 0;
    expect(young).to.be.greaterThan(0);
    expect(v8Heap.committedBytes())
      .to.be.greaterThan(5 * MIB)
      .and.at.most(total - young + MIB);
  });

  it('this V8 knows the flags: it says nothing', () => {
    const module = new URL('../../src/heap-trimmer.ts', import.meta.url).href;
    const script = `import { v8Heap } from '${module}'; v8Heap.setMemorySaver(true); v8Heap.setMemorySaver(false);`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    expect(String(stdout) + String(stderr)).to.equal('');
    expect(status).to.equal(0);
  });
});
