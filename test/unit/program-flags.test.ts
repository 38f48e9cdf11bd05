/** How the operator is started: see docs/decisions/0017-v8-flags.md and docs/decisions/0019-native-memory.md. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { readShebang } from '../../build/shebang.ts';

const ROOT = new URL('../../', import.meta.url);

describe('flags of the program', () => {
  const { nodeFlags: flags, variables } = readShebang(fileURLToPath(new URL('src/main.ts', ROOT)));

  it('are those of the image and of the program that compiles its code', () => {
    const commands = readFileSync(new URL('Dockerfile', ROOT), 'utf8').matchAll(
      /^(?:RUN|ENTRYPOINT) (\["\/nodejs\/bin\/node".*\])$/gm,
    );
    const words = [...commands].map(([, command = '']) => JSON.parse(command) as string[]);
    const usedFlags = words.map((command) => command.filter((word) => word.startsWith('--')));
    expect(usedFlags).to.deep.equal([flags, flags]);
  });

  it('come with the variables of glibc that the image sets', () => {
    const stages = readFileSync(new URL('Dockerfile', ROOT), 'utf8').split(/^FROM /m);
    const words = /^ENV (.*)$/m.exec(stages.at(-1) ?? '')?.[1]?.split(' ');
    expect(words).to.deep.equal(['NODE_ENV=production', ...variables]);
    expect(variables).to.have.length(2);
  });

  it('are accepted by Node without output', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', '0'], {
      encoding: 'utf8',
    });
    expect({ status, stdout, stderr }).to.deep.equal({ status: 0, stdout: '', stderr: '' });
  });

  it('keep V8 from optimizing WebAssembly, however often it runs', () => {
    // One function, which counts its argument down to 0. By default, V8 optimizes it after some milliseconds.
    const script = `
      const module = [
        ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0],
        ...[10, 18, 1, 16, 0, 3, 64, 32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 0, 11],
      ];
      const { f } = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(module))).exports;
      const endMs = performance.now() + 300;
      while (!%IsTurboFanFunction(f) && performance.now() < endMs) f(100_000);
      console.log(%IsTurboFanFunction(f));`;
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [...flags, '--allow-natives-syntax', '-e', script],
      { encoding: 'utf8' },
    );
    expect({ stdout, stderr }).to.deep.equal({ stdout: 'false\n', stderr: '' });
  });
});
