/** The programs as they are built: bundled, in a package that contains nothing else from `src`. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { bundle, PROGRAMS } from '../../build/bundle.ts';
import { createDisposableFolder, type DisposableFolder } from '../../control-plane/process-supervisor.ts';
import { MIN_NODE_VERSION } from '../../src/node-version.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const SUBCOMMANDS = ['status', 'doctor', 'simulate', 'agent', 'selftest', 'get', 'expect'];

describe('the build', () => {
  let folder: DisposableFolder;

  before(async () => {
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-build-');
    for (const name of ['package.json', 'proto', 'crds', 'node_modules'])
      symlinkSync(join(ROOT, name), join(folder.path, name));
    await bundle(PROGRAMS, join(folder.path, 'dist'));
  });

  after(() => folder.dispose());

  function run(args: readonly string[], input = '') {
    return spawnSync(process.execPath, args, { cwd: '/', encoding: 'utf8', input });
  }

  const program = (name: string): string => join(folder.path, 'dist', name);

  it('prints the version of the package', () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    expect(run([program('main.js'), '--version'])).to.include({
      status: 0,
      stdout: `${version}\n`,
      stderr: '',
    });
    expect(run([program('kubectl-rt.js'), 'version'])).to.include({ status: 0, stdout: `${version}\n` });
  });

  for (const name of SUBCOMMANDS) {
    it(`contains the subcommand ${name}`, () => {
      const { status, stdout, stderr } = run([program('main.js'), name, '--help']);
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
      expect(stdout).to.contain(`Usage: reverse-tunnel-operator ${name}`);
    });
  }

  it('reports an error of a user with the auth provider oidc', () => {
    const { status, stdout } = run(
      [program('oidc-process.js')],
      '{"auth-provider":{"name":"oidc","config":{}}}',
    );
    expect(status).to.equal(0);
    expect(JSON.parse(stdout)).to.have.property('error');
  });

  it('starts the operator without the packages that few installations need', () => {
    const script = `
      const loaded = require(${JSON.stringify(program('server-command.js'))});
      const files = Object.keys(require.cache).map((file) => file.split('/node_modules/')[1] ?? 'bundle');
      console.log(JSON.stringify([typeof loaded.runServer, [...new Set(files)]]));`;
    expect(JSON.parse(run(['-e', script]).stdout)).to.deep.equal(['function', ['bundle']]);
  });

  it('serves reflection, whose packages are not bundled', () => {
    const script = `
      const added = [];
      require(${JSON.stringify(program('reflection.js'))}).addReflection({
        addService: (service) => added.push(...Object.values(service).map(({ path }) => path)),
      });
      console.log(added.join('\\n'));`;
    const { stdout, stderr } = run(['-e', script]);
    expect(stderr).to.equal('');
    expect(stdout.split('\n')).to.include('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo');
  });

  describe('with the code that V8 has compiled', () => {
    interface Loaded {
      readonly type: string;
      readonly isCached: boolean;
      readonly codeBytes: number;
    }

    /** Starts Node and loads the server, with the code in `folder`. */
    function load(folder: string, flags: readonly string[] = []): Loaded {
      const [loader, server, cache] = [join(ROOT, 'src/code-cache.ts'), program('server-command.js'), folder];
      const script = `
        import { loadBundle } from ${JSON.stringify(loader)};
        const loaded = loadBundle(${JSON.stringify(server)}, ${JSON.stringify(cache)});
        const type = typeof loaded.exports.runServer;
        const codeBytes = loaded.compiledCode().length;
        console.log(JSON.stringify({ type, isCached: loaded.isCached, codeBytes }));`;
      return JSON.parse(run([...flags, '--input-type=module', '-e', script]).stdout) as Loaded;
    }

    before(() => {
      expect(run([program('warm-up.js')])).to.include({ status: 0, stdout: '', stderr: '' });
    });

    it('contains the functions that are compiled only when they are called', () => {
      const withCode = load(program('compile-cache'));
      const without = load(join(folder.path, 'none'));
      expect(withCode).to.include({ type: 'function', isCached: true });
      expect(without).to.include({ type: 'function', isCached: false });
      expect(withCode.codeBytes).to.be.greaterThan(1.5 * without.codeBytes);
    });

    it('loads the server without that code under other flags of V8', () => {
      const loaded = load(program('compile-cache'), ['--no-opt']);
      expect(loaded).to.include({ type: 'function', isCached: false });
    });
  });

  it('prints one line under an older Node, which cannot load the other files', () => {
    const script = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.0.0' } });`;
    const preload = ['--import', `data:text/javascript,${encodeURIComponent(script)}`];
    expect(run([...preload, program('main.js')])).to.include({
      status: 1,
      stderr: `reverse-tunnel-operator: Node 20.0.0 is too old; ${MIN_NODE_VERSION} or later is required (${process.execPath})\n`,
    });
  });

  it('has a source map for each program, which names the sources', () => {
    const files = readdirSync(join(folder.path, 'dist')).filter((file) => file.endsWith('.js'));
    expect(files).to.include.members([
      'main.js',
      'kubectl-rt.js',
      'kubectl-complete-rt.js',
      'oidc-process.js',
      'server-command.js',
    ]);
    for (const file of files) {
      const { sources } = JSON.parse(readFileSync(program(`${file}.map`), 'utf8')) as { sources: string[] };
      expect(sources.join('\n'), file).to.match(/\/(src|build)\//);
    }
  });
});
