/** The steps of `npm run test:cluster`, in their order. Each leaves what the next one needs. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { run } from '../../control-plane/run.ts';
import { eventually } from '../support/eventually.ts';
import { CHART } from '../support/helm.ts';
import type { ImageBuilder } from '../../cluster/image-builder.ts';
import type { ClusterTools, HelmVersion } from './cluster-tools.ts';
import { DISRUPTIONS, upgradeFrom } from './disruptions.ts';
import { deleteObjects, type Fleet, startFleet } from './fleet.ts';
import {
  AUTH_MODES,
  clientFlags,
  createRestrictedNamespace,
  doctor,
  helmTest,
  IMAGE_VALUES,
  install,
  MTLS,
  NAMESPACE,
  uninstall,
} from './installation.ts';
import { mebibytes, memoryOf, operatorPods } from './pods.ts';
import { runSidecar } from './sidecar.ts';

/** The outcome of a step that has not failed. */
export interface StepResult {
  readonly note?: string;
  /** Objects that were written although their tunnel had not changed; the step fails unless it is 0. */
  readonly rewritten?: number;
}

/** A step. It fails if it throws. */
export interface Step {
  readonly name: string;
  readonly run: (context: StepContext) => Promise<StepResult>;
}

/** What steps share. */
export interface StepContext {
  readonly tools: ClusterTools;
  readonly builder: ImageBuilder;
  /** The folder with the files of the image. */
  readonly imageFiles: string;
  /** A temporary folder. */
  readonly folder: string;
  /** The fleet that the disruptions disturb; runs from its first use until the step that ends it. */
  fleet: Fleet | undefined;
}

const FLEET = { reporters: 20, tunnels: 250, churn: 5 };
/** A memory limit that is large enough for 100,000 objects. */
const LARGE = [...MTLS, '--set', 'resources.limits.memory=1Gi'];
const INSECURE = AUTH_MODES['insecure'] ?? [];

function installSteps(version: HelmVersion): Step[] {
  return [
    ...Object.entries(AUTH_MODES).map(([mode, values]) => ({
      name: `Helm ${version}: install, doctor and helm test with --auth ${mode}`,
      async run({ tools }: StepContext) {
        await install(tools, version, values);
        const last = await helmTest(tools, version);
        await requireHealthy(tools);
        await uninstall(tools, version);
        return { note: last };
      },
    })),
    {
      name: `Helm ${version}: uninstall leaves only what the page lists`,
      async run({ tools }) {
        return { note: await checkRemains(tools) };
      },
    },
  ];
}

/** Returns the steps. `largest`: number of objects in the last measurement of memory. */
export function createSteps(largest: number): Step[] {
  return [
    { name: 'content of the image', run: checkImage },
    {
      name: 'namespace that enforces the Pod Security level restricted',
      async run({ tools }) {
        await createRestrictedNamespace(tools);
        return {};
      },
    },
    ...installSteps(4),
    ...installSteps(3),
    {
      name: 'upgrade from the chart of the previous commit',
      async run(context) {
        const chart = await previousChart(context.folder);
        await install(context.tools, 4, MTLS, chart);
        return await upgradeFrom(context.tools, await requireFleet(context));
      },
    },
    ...Object.entries(DISRUPTIONS).map(([name, disruption]) => ({
      name,
      run: async (context: StepContext): Promise<StepResult> => {
        await requireInstallation(context.tools);
        return await disruption(context.tools, await requireFleet(context));
      },
    })),
    ...(['token', 'certificate'] as const).map((credential) => ({
      name: `standard Envoy with the agent as a sidecar, with a ${credential}`,
      run: async (context: StepContext): Promise<StepResult> => {
        await endFleet(context);
        await install(context.tools, 4, AUTH_MODES['mtls-or-token'] ?? []);
        return { note: await runSidecar(context.tools, context.builder, credential, context.folder) };
      },
    })),
    ...([4, 3] as const).map((version) => ({
      name: `Helm ${version}: move to another namespace`,
      run: async (context: StepContext): Promise<StepResult> => {
        await endFleet(context);
        return await move(context, version);
      },
    })),
    // Last, because the node ends faster than 100,000 objects can be deleted.
    ...[0, 10_000, largest].map((objects) => ({
      name: `memory with ${objects} objects`,
      run: async (context: StepContext): Promise<StepResult> => await measureMemory(context, objects),
    })),
  ];
}

/**
 * Moves the operator to another namespace and release, as the README of the chart describes it: the CRDs stay, so the
 * new release takes them over, and with them the objects of the old namespace.
 */
async function move({ tools }: StepContext, version: HelmVersion): Promise<StepResult> {
  if ((await operatorPods(tools)).length === 0) await install(tools, version, INSECURE);
  await uninstall(tools, version);
  const namespace = `moved-with-helm-${version}`;
  await createRestrictedNamespace(tools, namespace);
  const release = 'tunnels';
  const inside = ['--namespace', namespace];
  const wait = ['--wait', '--timeout', '300s'];
  const upgrade = ['upgrade', '--install', release, CHART, ...inside, ...IMAGE_VALUES, ...INSECURE, ...wait];
  const crds = ['get', 'crd', '--selector', `app.kubernetes.io/name=${NAMESPACE}`];
  const owner = `jsonpath={.items[*].metadata.annotations.meta\\.helm\\.sh/release-namespace}`;
  const owners = async (): Promise<readonly string[]> =>
    (await tools.kubectl(...crds, '--output', owner)).trim().split(' ');
  const before = await owners();
  if (before.length < 2 || before.some((each) => each !== NAMESPACE))
    throw new Error(`the CRDs belong to ${before.join(', ')}`);
  // Without the flag, Helm must reject what belongs to another release.
  const rejected = await tools.helm(version, ...upgrade).then(
    () => undefined,
    (error: unknown) => String(error),
  );
  if (rejected?.includes('cannot be imported') !== true)
    throw new Error(`without --take-ownership: ${rejected ?? 'installed'}`);
  await tools.helm(version, ...upgrade, '--take-ownership');
  const after = await owners();
  if (after.length !== before.length || after.some((each) => each !== namespace))
    throw new Error(`the CRDs belong to ${after.join(', ')}`);
  await tools.helm(version, 'test', release, ...inside, '--timeout', '300s');
  // Later upgrades need no flag.
  await tools.helm(version, ...upgrade);
  await tools.helm(version, 'uninstall', release, ...inside, ...wait);
  // The command of the page. Otherwise another release cannot contain the CRDs.
  await tools.kubectl('delete', 'crd', '--selector', `app.kubernetes.io/instance=${release}`);
  await tools.kubectl('delete', 'namespace', namespace, '--timeout', '300s');
  return { note: `${after.length} CRDs taken over from another release` };
}

async function requireHealthy(tools: ClusterTools): Promise<void> {
  let problems = '';
  await eventually(
    'doctor passes',
    async () => {
      const result = await doctor(tools);
      ({ problems } = result);
      return result.ok;
    },
    120_000,
    1000,
  ).catch(() => {
    throw new Error(`doctor: ${problems}`);
  });
}

async function requireInstallation(tools: ClusterTools): Promise<void> {
  if ((await operatorPods(tools)).length === 0) await install(tools, 4, MTLS);
}

async function requireFleet(context: StepContext): Promise<Fleet> {
  if (context.fleet === undefined) {
    const flags = await clientFlags(context.tools, context.folder, writeFile);
    context.fleet = await startFleet(context.tools, FLEET, flags);
  }
  return context.fleet;
}

/** Ends the fleet, if one runs. */
export async function endFleet(context: StepContext): Promise<void> {
  await context.fleet?.stop();
  context.fleet = undefined;
}

/** Compares the files of the image with what the Dockerfile promises. */
async function checkImage({ imageFiles }: StepContext): Promise<StepResult> {
  const application = join(imageFiles, 'app');
  const files = (await readdir(application, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(application.length + 1));
  // The maps of the bundle are for `--enable-source-maps`.
  const unwanted = files.filter((file) =>
    /\.(?:[mc]?ts|node|bare)$|\/prebuilds\/|^node_modules\/.*\.map$/.test(file),
  );
  if (unwanted.length > 0)
    throw new Error(`files that Node does not load: ${unwanted.slice(0, 5).join(', ')}`);
  const packages = files.filter((file) => /^node_modules\/(?:@[^/]+\/)?[^/]+\/package\.json$/.test(file));
  const isLicense = (file: string): boolean => /(?:^|\/)(?:licen[sc]e|copying)[^/]*$/i.test(file);
  const missing: string[] = [];
  for (const file of packages) {
    const folder = file.slice(0, -'package.json'.length);
    const inInstalled = files.some(
      (candidate) => candidate.startsWith(folder) && isLicense(candidate.slice(folder.length)),
    );
    if (inInstalled) continue;
    // Some packages are published without a license file; an image cannot contain what they do not.
    const published = await readdir(join('node_modules', folder.slice('node_modules/'.length))).catch(
      () => [],
    );
    if (published.some((name) => isLicense(name))) missing.push(folder);
  }
  if (missing.length > 0) throw new Error(`without the license of their package: ${missing.join(', ')}`);
  for (const file of ['LICENSE', 'package.json', 'dist/main.js', 'crds/reversetunnels.yaml']) {
    if (!files.includes(file)) throw new Error(`missing: ${file}`);
  }
  if (!files.some((file) => file.startsWith('dist/compile-cache/')))
    throw new Error('missing: the code that V8 has compiled');
  if (files.some((file) => file.startsWith('dist/warm-up.'))) throw new Error('a file of the build is left');
  const licenses = files.filter(isLicense).length;
  const sizes = await run('du', ['--summarize', '--bytes', application, imageFiles], {
    cwd: '/',
    env: process.env,
  });
  const [own = 0, all = 0] = sizes.stdout.split('\n').map((line) => Number(line.split('\t')[0]));
  return {
    note: `/app: ${files.length} files, ${mebibytes(own)}; ${licenses} license files of ${packages.length} packages; image: ${mebibytes(all)}`,
  };
}

/** Unpacks the chart of the commit before this one, as a user upgrades from it. Returns its folder. */
async function previousChart(folder: string): Promise<string> {
  const archive = join(folder, 'previous.tar');
  const git = await run('git', ['archive', '--output', archive, 'HEAD~1', 'charts'], {
    cwd: process.cwd(),
    env: process.env,
  });
  if (git.code !== 0) throw new Error(`git archive: ${git.stderr}`);
  const tar = await run('tar', ['--extract', '--file', archive, '--directory', folder], {
    cwd: folder,
    env: process.env,
  });
  if (tar.code !== 0) throw new Error(`tar: ${tar.stderr}`);
  return join(folder, 'charts', 'reverse-tunnel-operator');
}

/** Kinds of objects that `helm uninstall` keeps, as the README of the chart lists them. */
const KEPT = new Set(['Lease', 'Event', 'ReverseTunnel', 'ReverseTunnelReporter']);
/** What every namespace contains. */
const OF_NAMESPACE = new Set(['ConfigMap/kube-root-ca.crt', 'ServiceAccount/default']);

async function checkRemains({ kubectl }: ClusterTools): Promise<string> {
  // Helm waits for the Deployment only; its pods end within their grace period.
  const pods = ['get', 'pods', '--namespace', NAMESPACE, '--output', 'name'];
  const ended = async (): Promise<boolean> => (await kubectl(...pods)).trim() === `pod/${NAMESPACE}-test`;
  await eventually('the pods have ended', ended, 60_000, 500);
  const listed = await kubectl('api-resources', '--verbs=list', '--namespaced', '--output', 'name');
  const resources = listed
    .trim()
    .split('\n')
    .filter((name) => !name.startsWith('events'))
    .join(',');
  const template = 'jsonpath={range .items[*]}{.kind}/{.metadata.name}{"\\n"}{end}';
  const text = await kubectl('get', resources, '--namespace', NAMESPACE, '--output', template);
  const remains = text.split('\n').filter((line) => line !== '' && !OF_NAMESPACE.has(line));
  const testPod = `Pod/${NAMESPACE}-test`;
  const unexpected = remains.filter((line) => line !== testPod && !KEPT.has(line.split('/')[0] ?? ''));
  if (unexpected.length > 0) throw new Error(`not on the page: ${unexpected.join(', ')}`);
  const clusterWide = await kubectl(
    'get',
    'clusterrole,clusterrolebinding',
    '--selector',
    `app.kubernetes.io/instance=${NAMESPACE}`,
    '--output',
    'name',
  );
  if (clusterWide.trim() !== '') throw new Error(`not on the page: ${clusterWide.trim()}`);
  // The commands of the page.
  await kubectl(
    'delete',
    'lease',
    '--namespace',
    NAMESPACE,
    '--selector',
    'app.kubernetes.io/managed-by=reverse-tunnel-operator',
  );
  await kubectl(
    'delete',
    'pod',
    '--namespace',
    NAMESPACE,
    '--selector',
    'app.kubernetes.io/name=reverse-tunnel-operator-test',
  );
  const leases = await kubectl('get', 'lease,pod', '--namespace', NAMESPACE, '--output', 'name');
  if (leases.trim() !== '') throw new Error(`the commands of the page leave ${leases.trim()}`);
  return `kept: ${remains.join(', ') || 'nothing'}, and the CRDs`;
}

/** Measures a fresh pair of pods with a number of objects, of which each pod holds about half of the reporters. */
async function measureMemory(context: StepContext, objects: number): Promise<StepResult> {
  const { tools } = context;
  await endFleet(context);
  if ((await operatorPods(tools)).length > 0) await uninstall(tools, 4);
  await deleteObjects(tools);
  await install(tools, 4, LARGE);
  const startedMs = performance.now();
  let seconds = 0;
  if (objects > 0) {
    const flags = await clientFlags(tools, context.folder, writeFile);
    context.fleet = await startFleet(tools, { reporters: 20, tunnels: objects / 20, churn: 0 }, flags);
    seconds = (performance.now() - startedMs) / 1000;
  }
  await requireHealthy(tools);
  const pods = await operatorPods(tools);
  const memory = await Promise.all(pods.map(memoryOf));
  const shown = memory
    .map(({ workingSet, peak }) => `${mebibytes(workingSet)} (peak ${mebibytes(peak)})`)
    .join(', ');
  return { note: `per pod: ${shown}${objects === 0 ? '' : `; written in ${seconds.toFixed(0)} s`}` };
}

/** Reads the last lines of the operator's logs, for the report of a failure. */
export async function describeFailure({ tools }: StepContext): Promise<string> {
  const { stdout } = await tools.run([
    'kubectl',
    'get',
    'pods,events',
    '--all-namespaces',
    '--sort-by=.metadata.creationTimestamp',
  ]);
  const kubelet = await readFile(join(tools.node.logs, 'kubelet.log'), 'utf8').catch(() => '');
  return `${stdout.split('\n').slice(-25).join('\n')}\n${kubelet.split('\n').slice(-3).join('\n')}`;
}

/** Creates the context of the steps; `dispose` removes its folder. */
export async function createContext(
  parts: Pick<StepContext, 'tools' | 'builder' | 'imageFiles'>,
): Promise<{ context: StepContext; dispose: () => Promise<void> }> {
  const folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-cluster-');
  return { context: { ...parts, folder: folder.path, fleet: undefined }, dispose: folder.dispose };
}
