/** The content of the stand-ins for the base images of the Dockerfile, beyond the packages of Debian. */
import { chmod, chown, copyFile, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lastLines, run } from '../control-plane/run.ts';
import { ClusterError } from './errors.ts';

/** The packages of Debian in each base image. */
export const BASE_PACKAGES = {
  build: [
    ...['base-files', 'base-passwd', 'bash', 'coreutils', 'dash', 'findutils', 'grep', 'sed', 'tar', 'gzip'],
    ...['libstdc++6', 'libgcc-s1', 'ca-certificates'],
  ],
  // What the real image contains, according to its documentation.
  runtime: [
    ...['base-files', 'netbase', 'tzdata', 'ca-certificates', 'libc6', 'libgcc-s1', 'libgomp1', 'libstdc++6'],
    'libssl3t64',
  ],
} as const;

export const NPM_VERSION = '11.19.1';
/** The user of the image, as in the real base image. */
const NONROOT = 65532;

/** Adds the Node that runs this program, and npm, as `node:24-trixie-slim` has them. */
export async function addNode(folder: string, env: NodeJS.ProcessEnv): Promise<void> {
  const local = join(folder, 'usr', 'local');
  const modules = join(local, 'lib', 'node_modules');
  for (const path of [join(local, 'bin'), join(modules, 'npm'), join(local, 'etc')])
    await mkdir(path, { recursive: true });
  await installProgram(process.execPath, join(local, 'bin', 'node'));
  const pack = await run('npm', ['pack', `npm@${NPM_VERSION}`, '--pack-destination', modules], {
    cwd: '/',
    env,
  });
  const archive = join(modules, `npm-${NPM_VERSION}.tgz`);
  const unpack = await run(
    'tar',
    ['--extract', '--file', archive, '--strip-components', '1', '--directory', join(modules, 'npm')],
    { cwd: '/', env },
  );
  if (pack.code !== 0 || unpack.code !== 0) {
    throw new ClusterError(
      `cannot provide npm ${NPM_VERSION}: ${lastLines(pack.stderr || unpack.stderr, 2)}`,
    );
  }
  const cli = '../lib/node_modules/npm/bin/npm-cli.js';
  await chmod(join(local, 'bin', cli), 0o755);
  await symlink(cli, join(local, 'bin', 'npm'));
}

/** Adds Node, the certificates and the users, as `distroless/nodejs24-debian13` has them. */
export async function addRuntimeFiles(folder: string): Promise<void> {
  const home = join(folder, 'home', 'nonroot');
  const certificates = join(folder, 'etc', 'ssl', 'certs');
  for (const path of [join(folder, 'nodejs', 'bin'), home, certificates])
    await mkdir(path, { recursive: true });
  await installProgram(process.execPath, join(folder, 'nodejs', 'bin', 'node'));
  const authorities = join(folder, 'usr', 'share', 'ca-certificates', 'mozilla');
  const files = (await readdir(authorities)).toSorted();
  const bundle = await Promise.all(files.map((file) => readFile(join(authorities, file), 'utf8')));
  await writeFile(join(certificates, 'ca-certificates.crt'), bundle.join(''));
  const users = { root: 0, nonroot: NONROOT };
  for (const [file, format] of Object.entries({
    passwd: (name: string, id: number) => `${name}:x:${id}:${id}:${name}:/home/${name}:/sbin/nologin\n`,
    group: (name: string, id: number) => `${name}:x:${id}:\n`,
  })) {
    const lines = Object.entries(users).map(([name, id]) => format(name, id));
    await writeFile(join(folder, 'etc', file), lines.join(''));
  }
  await chown(home, NONROOT, NONROOT);
}

async function installProgram(source: string, target: string): Promise<void> {
  await copyFile(source, target);
  await chmod(target, 0o755);
}
