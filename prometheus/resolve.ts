/** Finds promtool and Prometheus for the tests of alerts and of the dashboard, or obtains them. */
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { cacheRoot, installOnce } from '../control-plane/cache.ts';
import { findInPath, findMissing } from '../control-plane/executables.ts';
import { createProgress, type Progress } from '../control-plane/progress.ts';
import { lastLines, run } from '../control-plane/run.ts';

const PROGRAMS = ['promtool', 'prometheus'] as const;
const FOLDER = import.meta.dirname;
/** The `tool` lines of `go.mod`. */
const GO_PACKAGES = PROGRAMS.map((name) => `github.com/prometheus/prometheus/cmd/${name}`);
/** How long apt may take. The package has 19 MB. */
const DOWNLOAD_TIMEOUT_MS = 120_000;

/** No Prometheus is available. One line for the user, with what was tried and what to do. */
export class PrometheusError extends Error {
  override readonly name = 'PrometheusError';
}

/** Programs that run on this machine. */
export interface ResolvedPrometheus {
  readonly promtool: string;
  readonly prometheus: string;
  readonly source: 'PATH' | 'cache' | 'apt' | 'go';
}

/** What decides where the programs come from. */
export interface PrometheusResolveOptions {
  /** PATH, XDG_CACHE_HOME and HOME are read. Default: the environment of this process. */
  readonly env?: NodeJS.ProcessEnv;
  /** Receives downloads and builds. Default: stderr. */
  readonly progress?: Progress;
}

/**
 * Returns promtool and Prometheus from the first source that has both: the PATH, the cache folder, the package
 * `prometheus` of the distribution (downloaded with apt and unpacked, not installed; 2 s), a build of the pinned Go
 * modules (7 minutes on 2 cores).
 *
 * @throws PrometheusError if no source has them
 */
export async function resolvePrometheus(options: PrometheusResolveOptions = {}): Promise<ResolvedPrometheus> {
  const env = options.env ?? process.env;
  const progress = options.progress ?? createProgress(process.stderr, undefined, 'prometheus');
  const installed = await findInPath(PROGRAMS, env);
  if (installed !== undefined) return programsIn(installed, 'PATH');
  // The modules are part of the path, so that a cached build of other modules is never used.
  const modules = createHash('sha256').update(await readFile(join(FOLDER, 'go.sum')));
  const folder = join(cacheRoot(env), 'prometheus', modules.digest('hex').slice(0, 12));
  if (await hasPrograms(folder)) return programsIn(folder, 'cache');
  let source: ResolvedPrometheus['source'] = 'apt';
  await installOnce(
    folder,
    async () => await hasPrograms(folder),
    async (partial) => {
      progress.log(`downloading the package prometheus with apt into ${folder}`);
      const aptError = await unpackPackage(partial, env);
      if (aptError === undefined) return;
      source = 'go';
      progress.log(`${aptError}; building promtool and Prometheus with Go, which takes minutes`);
      const goError = await build(partial, env, progress);
      if (goError !== undefined) {
        throw new PrometheusError(
          `promtool and prometheus are neither in the PATH nor cached; ${aptError}; ${goError}. ` +
            'Install Prometheus 2.42 or later, or Go 1.26 or later.',
        );
      }
    },
    progress,
  );
  return programsIn(folder, source);
}

function programsIn(folder: string, source: ResolvedPrometheus['source']): ResolvedPrometheus {
  return { promtool: join(folder, 'promtool'), prometheus: join(folder, 'prometheus'), source };
}

async function hasPrograms(folder: string): Promise<boolean> {
  return (await findMissing(folder, PROGRAMS)) === undefined;
}

/** Unpacks the package of the distribution. apt verifies its signature. Returns the error, or undefined. */
async function unpackPackage(folder: string, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const work = join(folder, '.apt');
  const lists = join(work, 'lists');
  await mkdir(lists, { recursive: true });
  // Lists of our own: they need no root, and the machine may have none.
  const own = ['-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${work}`];
  let error = await attempt('apt-get', ['download', '--quiet', 'prometheus'], work, env);
  if (error !== undefined) {
    error =
      (await attempt('apt-get', [...own, '--quiet', 'update'], work, env)) ??
      (await attempt('apt-get', [...own, 'download', '--quiet', 'prometheus'], work, env));
  }
  const file = (await readdir(work)).find((name) => name.endsWith('.deb'));
  if (error === undefined && file !== undefined) {
    const unpacked = join(work, 'unpacked');
    error = await attempt('dpkg-deb', ['--extract', file, unpacked], work, env);
    if (error === undefined) {
      for (const program of PROGRAMS)
        await rename(join(unpacked, 'usr', 'bin', program), join(folder, program));
    }
  }
  await rm(work, { recursive: true, force: true });
  return error;
}

/** Builds the programs from the modules that `go.mod` pins. Returns the error, or undefined. */
async function build(
  folder: string,
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<string | undefined> {
  let lines = 0;
  const { code, stderr } = await run(
    'go',
    ['build', '-v', '-mod=readonly', '-trimpath', '-o', folder, ...GO_PACKAGES],
    {
      cwd: FOLDER,
      env: { ...env, CGO_ENABLED: '0', GOWORK: 'off' },
      onStderrLine() {
        lines += 1;
        progress.update(`go build: ${lines} modules and packages`);
      },
    },
  );
  return code === 0 ? undefined : `go build failed: ${lastLines(stderr, 2) || `exit code ${code}`}`;
}

async function attempt(
  command: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  const { code, stderr } = await run(command, args, { cwd, env, timeoutMs: DOWNLOAD_TIMEOUT_MS });
  if (code === 0) return undefined;
  return `${command} failed: ${lastLines(stderr, 1) || `exit code ${code}`}`;
}
