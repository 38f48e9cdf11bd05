import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { getHeapSpaceStatistics } from 'node:v8';
import { expect } from 'chai';
import { pino } from 'pino';
import { readShebang } from '../../build/shebang.ts';
import { HeapTrimmer, v8Heap } from '../../src/heap-trimmer.ts';
import { FakeClock } from '../support/fake-clock.ts';

const MIB = 1024 * 1024;
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

describe('heap trimmer', () => {
  let clock: FakeClock;
  let committedMiB: number;
  let freeMiB: number;
  let youngMiB: number;
  let isIdle: boolean;
  let savesMemory: boolean;
  let trimmer: HeapTrimmer;

  beforeEach(() => {
    clock = new FakeClock();
    committedMiB = 35;
    freeMiB = 0;
    youngMiB = 0;
    isIdle = true;
    savesMemory = false;
    trimmer = new HeapTrimmer({
      heap: {
        committedBytes: () => committedMiB * MIB,
        usedBytes: () => (committedMiB - freeMiB) * MIB,
        oldBytes: () => (committedMiB - freeMiB - youngMiB) * MIB,
        setMemorySaver(on) {
          savesMemory = on;
        },
      },
      isIdle: () => isIdle,
      clock,
      log: pino({ level: 'silent' }),
    });
    trimmer.start();
  });

  /** Lets the heap grow by a burst, and V8 return everything above `mib` while the memory saver is enabled. */
  function growAndTrimTo(mib: number): void {
    committedMiB = 140;
    clock.advance(4000);
    committedMiB = mib;
    clock.advance(10_000);
  }

  it('enables the memory saver for 10 s after a burst and two idle polls', () => {
    isIdle = false;
    committedMiB = 140;
    clock.advance(60_000);
    expect(savesMemory, 'under load').to.equal(false);
    isIdle = true;
    clock.advance(2000);
    expect(savesMemory, 'after one idle poll').to.equal(false);
    clock.advance(2000);
    expect(savesMemory, 'after two idle polls').to.equal(true);
    committedMiB = 60;
    clock.advance(9999);
    expect(savesMemory).to.equal(true);
    clock.advance(1);
    expect(savesMemory).to.equal(false);
    committedMiB = 60 + 23;
    clock.advance(60_000);
    expect(savesMemory, 'temporary growth').to.equal(false);
    committedMiB = 60 + 24;
    clock.advance(4000);
    expect(savesMemory, 'next burst').to.equal(true);
  });

  it('tries three times while V8 keeps memory that is not used', () => {
    committedMiB = 140;
    freeMiB = 80;
    clock.advance(4000);
    let enabledPolls = 0;
    for (let poll = 0; poll < 100; poll += 1) {
      if (savesMemory) enabledPolls += 1;
      clock.advance(2000);
    }
    expect(enabledPolls).to.equal(3 * 5);
    committedMiB += 24;
    clock.advance(2000);
    expect(savesMemory, 'next burst').to.equal(true);
  });

  it('is not tried again once V8 has returned the memory', () => {
    committedMiB = 140;
    freeMiB = 80;
    clock.advance(14_000);
    expect(savesMemory, 'first attempt').to.equal(false);
    clock.advance(2000);
    expect(savesMemory, 'second attempt').to.equal(true);
    committedMiB = 60;
    freeMiB = 10;
    clock.advance(10_000);
    expect(savesMemory).to.equal(false);
    clock.advance(60_000);
    expect(savesMemory).to.equal(false);
  });

  it('does not try again if no memory could be returned', () => {
    committedMiB = 140;
    clock.advance(4000);
    expect(savesMemory).to.equal(true);
    clock.advance(10_000);
    let enabledPolls = 0;
    for (let poll = 0; poll < 100; poll += 1) {
      clock.advance(2000);
      if (savesMemory) enabledPolls += 1;
    }
    expect(enabledPolls).to.equal(0);
  });

  it('is enabled if the old generation has grown less 2 minutes after the heap was last trimmed', () => {
    growAndTrimTo(60);
    committedMiB = 60 + 4;
    clock.advance(2 * 60_000 - 2000);
    expect(savesMemory, 'too early').to.equal(false);
    clock.advance(2000);
    expect(savesMemory).to.equal(true);
    committedMiB = 60;
    clock.advance(10_000);
    committedMiB = 60 + 3;
    clock.advance(60 * 60_000);
    expect(savesMemory, 'too little to be worth a pause').to.equal(false);
    committedMiB = 60 + 23;
    youngMiB = 20;
    clock.advance(60 * 60_000);
    expect(savesMemory, 'mostly in the young generation').to.equal(false);
    // The garbage that V8 has collected by itself may have left free memory, which new objects use first.
    committedMiB = 60 + 23;
    youngMiB = 12;
    freeMiB = 7;
    clock.advance(4000);
    expect(savesMemory).to.equal(true);
  });

  it('is enabled even if V8 has meanwhile collected by itself, which returns no memory', () => {
    growAndTrimTo(60);
    committedMiB = 60 + 7;
    clock.advance(2000);
    freeMiB = 7;
    clock.advance(2 * 60_000 - 2000);
    expect(savesMemory).to.equal(true);
    committedMiB = 60;
    freeMiB = 0;
    clock.advance(10_000);
    clock.advance(60 * 60_000);
    expect(savesMemory, 'nothing to return').to.equal(false);
  });

  it('disables the memory saver when work arrives and enables it again afterwards', () => {
    committedMiB = 140;
    clock.advance(4000);
    isIdle = false;
    clock.advance(2000);
    expect(savesMemory).to.equal(false);
    clock.advance(30_000);
    isIdle = true;
    clock.advance(4000);
    expect(savesMemory).to.equal(true);
  });

  it('disables the memory saver when a large report arrives, and enables it again after two idle polls', () => {
    committedMiB = 140;
    clock.advance(4000);
    trimmer.reportArrived(10 * 1024);
    expect(savesMemory, 'full pushes of single reporters').to.equal(true);
    trimmer.reportArrived(250 * 1024);
    expect(savesMemory).to.equal(false);
    clock.advance(2000);
    trimmer.reportArrived(300 * 1024);
    clock.advance(4000);
    expect(savesMemory, 'reports still arrive').to.equal(false);
    clock.advance(2000);
    expect(savesMemory).to.equal(true);
  });

  it('restores the default and leaves no timer when it is stopped', () => {
    committedMiB = 140;
    clock.advance(4000);
    trimmer.stop();
    expect(savesMemory).to.equal(false);
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('counts the young generation, which has less than the minimum growth under the flags of the program', () => {
    const total = getHeapSpaceStatistics().reduce((sum, { space_size: bytes }) => sum + bytes, 0);
    expect(v8Heap.committedBytes()).to.be.closeTo(total, MIB);
    expect(v8Heap.usedBytes()).to.be.greaterThan(MIB).and.lessThan(v8Heap.committedBytes());
    expect(v8Heap.oldBytes()).to.be.greaterThan(MIB).and.lessThan(v8Heap.usedBytes());
    const source = readFileSync(MAIN, 'utf8');
    const semiSpaceMiB = Number(/--max-semi-space-size=(\d+)/.exec(source)?.[1]);
    // Two semi-spaces; an idle process that fills them must not be trimmed again and again.
    expect(2 * semiSpaceMiB).to.be.lessThan(24);
  });

  it('makes V8 collect garbage of which it would start no collection by itself', () => {
    const module = new URL('../../src/heap-trimmer.ts', import.meta.url).href;
    const script = `
      import { v8Heap } from '${module}';
      import { getHeapSpaceStatistics } from 'node:v8';
      // Without large objects, which collections of the young generation free as well.
      const oldBytes = () =>
        getHeapSpaceStatistics().find((space) => space.space_name === 'old_space').space_used_size;
      const live = Array.from({ length: 300_000 }, (_, index) => ({ index }));
      let garbage = Array.from({ length: 300_000 }, (_, index) => ({ index }));
      const allocate = () => Array.from({ length: 10_000 }, (_, index) => [index]);
      // Two collections of the young generation move the objects into the old one.
      for (let round = 0; round < 100; round += 1) allocate();
      const before = oldBytes();
      garbage = undefined;
      v8Heap.setMemorySaver(true);
      const endMs = performance.now() + 3000;
      // As heartbeats do: a little garbage, which V8 collects in the young generation.
      const timer = setInterval(() => {
        allocate();
        if (oldBytes() > before - 4 * ${MIB} && performance.now() < endMs) return;
        clearInterval(timer);
        console.log(JSON.stringify({ freedMiB: (before - oldBytes()) / ${MIB}, live: live.length }));
      }, 20);`;
    // With this heap, V8 needs no collection for these objects; after one, its reducer would start another.
    const flags = ['--max-semi-space-size=8', '--initial-heap-size=128', '--no-memory-reducer'];
    const { stdout, stderr } = spawnSync(process.execPath, [...flags, '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(stderr).to.equal('');
    expect((JSON.parse(stdout) as { freedMiB: number }).freedMiB).to.be.at.least(4);
  }).timeout(60_000);

  for (const when of ['after it was filled', 'after trimming']) {
    it(`lets the heap grow by 40 % ${when}, under the flags of the program`, () => {
      const module = new URL('../../src/heap-trimmer.ts', import.meta.url).href;
      const script = `
        import { v8Heap } from '${module}';
        import { constants, PerformanceObserver } from 'node:perf_hooks';
        const live = Array.from({ length: 2_000_000 }, (_, index) => ({ index }));
        v8Heap.setMemorySaver(${when === 'after trimming'});
        gc();
        v8Heap.setMemorySaver(false);
        const before = v8Heap.oldBytes();
        const observer = new PerformanceObserver((list) => {
          if (!list.getEntries().some(({ detail }) => detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR)) return;
          clearInterval(timer);
          observer.disconnect();
          console.log(JSON.stringify({ growth: peak / before, live: live.length }));
        });
        observer.observe({ entryTypes: ['gc'] });
        // Objects that live until they have reached the old generation, where they become garbage.
        const recent = [];
        let peak = 0;
        const timer = setInterval(() => {
          recent.push(Array.from({ length: 10_000 }, (_, index) => ({ index })));
          if (recent.length > 20) recent.shift();
          peak = Math.max(peak, v8Heap.oldBytes());
        }, 2);`;
      const { nodeFlags } = readShebang(MAIN);
      const flags = [...nodeFlags, '--expose-gc', '--input-type=module'];
      const { stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', script], { encoding: 'utf8' });
      expect(stderr).to.equal('');
      const { growth } = JSON.parse(stdout) as { growth: number };
      // V8 marks while the program allocates.
      expect(growth).to.be.greaterThan(1.35).and.lessThan(2.5);
    }).timeout(60_000);
  }

  it('uses flags that this V8 accepts without output', () => {
    const module = new URL('../../src/heap-trimmer.ts', import.meta.url).href;
    const script = `import { v8Heap } from '${module}'; v8Heap.setMemorySaver(true); v8Heap.setMemorySaver(false);`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    expect(String(stdout) + String(stderr)).to.equal('');
    expect(status).to.equal(0);
  });
});
