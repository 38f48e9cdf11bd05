/** Builds images without a container engine: buildah runs in namespaces that end with it. */
import { existsSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createDisposableFolder } from '../control-plane/process-supervisor.ts';
import { lastLines, run } from '../control-plane/run.ts';
import { addNode, addRuntimeFiles, BASE_PACKAGES } from './base-folders.ts';
import { unpackDebian } from './debian.ts';
import { ClusterError } from './errors.ts';
import { PAUSE_IMAGE } from './node-files.ts';
import { clusterCache, type ProgramOptions, resolveRootfs } from './programs.ts';

const FOLDER = import.meta.dirname;
const REPOSITORY = join(FOLDER, '..');
/** The name that the chart's values have; never pulled, because the tests set the pull policy `Never`. */
export const OPERATOR_IMAGE = 'ghcr.io/reverse-tunnel-operator/reverse-tunnel-operator';
/** A build downloads the npm packages of the project. */
const BUILD_TIMEOUT_MS = 900_000;
const CERTIFICATES = '/etc/ssl/certs';

/** Images that stand in for those that the Dockerfile names: from Debian's and npm's packages instead of registries. */
const BASES = [
  {
    kind: 'build',
    image: 'docker.io/library/node:24-trixie-slim',
    config: ['--env', 'PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', '--cmd', 'node'],
  },
  {
    kind: 'runtime',
    image: 'gcr.io/distroless/nodejs24-debian13:nonroot',
    config: [
      ...['--env', `SSL_CERT_FILE=${CERTIFICATES}/ca-certificates.crt`, '--user', '65532'],
      ...['--workingdir', '/home/nonroot', '--entrypoint', '["/nodejs/bin/node"]'],
    ],
  },
] as const;

/** Builds images. Each method throws ClusterError with the last lines of buildah if it fails. */
export interface ImageBuilder {
  /** Builds the operator with this checkout's Dockerfile and returns the image as a file (OCI archive). */
  readonly buildOperator: (tag: string) => Promise<string>;
  /** Returns an image with a program on top of the runtime base, as a file. The name must contain a tag. */
  readonly buildProgram: (name: string, program: string, target: string) => Promise<string>;
  /** Returns the image of the first process of each pod, as a file. */
  readonly buildPause: (program: string) => Promise<string>;
  /** Copies the files of an image into an empty folder. */
  readonly extract: (name: string, folder: string) => Promise<void>;
}

/** Returns a builder whose images and archives are kept in the cache folder. */
export async function createImageBuilder(options: ProgramOptions): Promise<ImageBuilder> {
  const cache = await clusterCache(options.env);
  const rootfs = await resolveRootfs(options);
  const storage = join(cache, 'storage');
  const archives = join(cache, 'archives');
  for (const folder of [storage, archives]) await mkdir(folder, { recursive: true });

  /** Runs images.sh; `binds` are folders and files that it sees, by their path inside. */
  async function execute(
    args: readonly string[],
    binds: Readonly<Record<string, string>> = {},
  ): Promise<number> {
    const work = await createDisposableFolder(cache, '.images-');
    try {
      const mounts = {
        '/images.sh': join(FOLDER, 'images.sh'),
        '/var/lib/containers/storage': storage,
        ...binds,
      };
      const { code, stdout, stderr } = await run(
        'unshare',
        [
          ...[
            '--mount',
            '--pid',
            '--fork',
            '--kill-child',
            '--propagation',
            'private',
            join(FOLDER, 'enter.sh'),
          ],
          ...[rootfs, work.path, ...Object.entries(mounts).map(([target, source]) => `${source}=${target}`)],
          ...['--', '/bin/bash', '/images.sh', ...args],
        ],
        {
          cwd: '/',
          env: { ...options.env, PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
          timeoutMs: BUILD_TIMEOUT_MS,
          onStderrLine: (line) => options.progress.update(line),
        },
      );
      if (code === 0 || args[0] === 'exists') return code ?? 1;
      throw new ClusterError(
        `buildah failed (${args.slice(0, 2).join(' ')}): ${lastLines(stderr || stdout, 4)}`,
      );
    } finally {
      await work.dispose();
    }
  }

  async function save(name: string): Promise<string> {
    const file = join(archives, `${name.replaceAll(/[^a-z0-9.]+/g, '-')}.tar`);
    const folder = await createDisposableFolder(archives, '.save-');
    try {
      await execute(['save', name, '/archives/image.tar'], { '/archives': folder.path });
      await rename(join(folder.path, 'image.tar'), file);
    } finally {
      await folder.dispose();
    }
    return file;
  }

  async function provideBases(): Promise<void> {
    for (const { kind, image, config } of BASES) {
      if ((await execute(['exists', image])) === 0) continue;
      options.progress.log(`building a stand-in for ${image}`);
      const folder = await createDisposableFolder(cache, '.base-');
      try {
        await unpackDebian({ ...options, folder: folder.path, packages: BASE_PACKAGES[kind] });
        if (kind === 'build') await addNode(folder.path, options.env);
        else await addRuntimeFiles(folder.path);
        await execute(['from-folder', image, '/base', ...config], { '/base': folder.path });
      } finally {
        await folder.dispose();
      }
    }
  }

  return {
    async buildOperator(tag) {
      await provideBases();
      options.progress.log('building the image with the Dockerfile');
      const name = `${OPERATOR_IMAGE}:${tag}`;
      const machine = await createDisposableFolder(cache, '.machine-');
      try {
        const npmrc = join(machine.path, 'npmrc');
        await writeFile(npmrc, await npmSettings(options));
        await execute(['build', name], {
          '/context': REPOSITORY,
          '/machine/npmrc': npmrc,
          '/machine/resolv.conf': '/etc/resolv.conf',
          ...(existsSync(CERTIFICATES)
            ? { '/machine/certs': CERTIFICATES, [CERTIFICATES]: CERTIFICATES }
            : {}),
        });
      } finally {
        await machine.dispose();
      }
      await execute(['prune']);
      return await save(name);
    },
    async buildProgram(name, program, target) {
      await provideBases();
      await execute(['add', name, BASES[1].image, '/program', target], { '/program': program });
      return await save(name);
    },
    async buildPause(program) {
      const existing = join(archives, 'localhost-pause-1.tar');
      if (existsSync(existing)) return existing;
      await execute(['from-folder', PAUSE_IMAGE, '/program/', '--entrypoint', '["/pause"]'], {
        '/program/pause': program,
      });
      return await save(PAUSE_IMAGE);
    },
    async extract(name, folder) {
      await execute(['extract', name, '/files'], { '/files': folder });
    },
  };
}

/** Returns npm settings for the build: the registry of this machine, and the certificates that it trusts. */
async function npmSettings({ env }: ProgramOptions): Promise<string> {
  const { code, stdout } = await run('npm', ['config', 'get', 'registry'], { cwd: '/', env });
  const lines = code === 0 ? [`registry=${stdout.trim()}`] : [];
  const bundle = join(CERTIFICATES, 'ca-certificates.crt');
  if (existsSync(bundle)) lines.push(`cafile=${bundle}`);
  return `${lines.join('\n')}\n`;
}
