/** Unpacks packages of Debian into a folder. Nothing is installed, and apt's files of the machine are not touched. */
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { findInPath } from '../control-plane/executables.ts';
import type { Progress } from '../control-plane/progress.ts';
import { lastLines, run } from '../control-plane/run.ts';
import { findDebianArchives } from './debian-archives.ts';
import { ClusterError } from './errors.ts';

/** Pins the versions, except for security updates and point releases of Debian. */
export const DEBIAN_SUITE = 'trixie';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** How long apt may take. The packages of the node have 110 MB. */
const DOWNLOAD_TIMEOUT_MS = 600_000;

/** What is unpacked, and where. */
export interface DebianRequest {
  /** An empty folder; afterwards, `etc/packages` in it lists the packages with their versions. */
  readonly folder: string;
  /** Names of packages; what they depend on is added. */
  readonly packages: readonly string[];
  /** PATH, DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR are read. */
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
}

/**
 * Downloads the packages, whose signatures apt verifies, and unpacks them without running their scripts.
 *
 * @throws ClusterError if apt is missing or fails
 */
export async function unpackDebian({ folder, packages, env, progress }: DebianRequest): Promise<void> {
  if ((await findInPath(['apt-get', 'dpkg-deb'], env)) === undefined) {
    throw new ClusterError(
      'cannot provide containerd: no apt-get on the PATH; use a machine with Debian or Ubuntu',
    );
  }
  const work = join(folder, '.apt');
  for (const state of ['lists/partial', 'cache/archives/partial'])
    await mkdir(join(work, state), { recursive: true });
  // An empty list of installed packages: apt adds all dependencies, whatever the machine has.
  await writeFile(join(work, 'status'), '');
  const archives = await findDebianArchives(env);
  const source = (url: string, suite: string): string => `deb [signed-by=${KEYRING}] ${url} ${suite} main\n`;
  await writeFile(
    join(work, 'sources.list'),
    source(archives.debian, DEBIAN_SUITE) + source(archives['debian-security'], `${DEBIAN_SUITE}-security`),
  );
  const configuration = {
    'Dir::Etc::SourceList': join(work, 'sources.list'),
    'Dir::Etc::SourceParts': '-',
    'Dir::State::Lists': join(work, 'lists'),
    'Dir::State::status': join(work, 'status'),
    'Dir::Cache': join(work, 'cache'),
    'APT::Install-Recommends': 'false',
    // The folder is readable only by this user.
    'APT::Sandbox::User': 'root',
  };
  const apt = async (...args: string[]): Promise<void> => {
    const settings = Object.entries(configuration).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
    await execute('apt-get', [...settings, '--quiet', '--yes', ...args], work, env);
  };
  progress.update(`downloading ${packages.length} packages of Debian ${DEBIAN_SUITE} and their dependencies`);
  await apt('update');
  await apt('--download-only', 'install', ...packages);
  const downloads = join(work, 'cache', 'archives');
  const files = (await readdir(downloads)).filter((name) => name.endsWith('.deb')).toSorted();
  for (const [index, file] of files.entries()) {
    progress.update(`unpacking packages: ${index + 1} of ${files.length}`);
    await execute('dpkg-deb', ['--extract', join(downloads, file), folder], work, env);
  }
  await mkdir(join(folder, 'etc'), { recursive: true });
  // As the script of base-passwd does.
  for (const name of ['passwd', 'group']) {
    const master = join(folder, 'usr', 'share', 'base-passwd', `${name}.master`);
    if (existsSync(master)) await copyFile(master, join(folder, 'etc', name));
  }
  await writeFile(join(folder, 'etc', 'packages'), `${files.join('\n')}\n`);
  await rm(work, { recursive: true });
}

async function execute(
  command: string,
  args: readonly string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const { code, stderr } = await run(command, args, { cwd, env, timeoutMs: DOWNLOAD_TIMEOUT_MS });
  if (code !== 0) throw new ClusterError(`${command} failed: ${lastLines(stderr, 2) || `exit code ${code}`}`);
}
