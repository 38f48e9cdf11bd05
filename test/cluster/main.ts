/**
 * `npm run test:cluster`: the image and the chart in a real cluster. Prints a table of the steps with their times and
 * the number of objects that were rewritten without a reason, and ends with `N passed, N failed`.
 */
import { parseArgs } from 'node:util';
import { ClusterError } from '../../cluster/errors.ts';
import { EXIT_FAILURE, EXIT_USAGE, exitOnSignals } from '../../cluster/exit.ts';
import { createImageBuilder, OPERATOR_IMAGE } from '../../cluster/image-builder.ts';
import { findNode, loadImage, nodeFolder, startNode, stopNode } from '../../cluster/node.ts';
import { resolveHelm3 } from '../../cluster/programs.ts';
import { ControlPlaneError, errorMessage } from '../../control-plane/errors.ts';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { createProgress } from '../../control-plane/progress.ts';
import { createClusterTools } from './cluster-tools.ts';
import { compareFootprints, takeFootprint } from './footprint.ts';
import { createContext, createSteps, describeFailure, endFleet, type Step } from './steps.ts';

const HELP = `Usage: npm run test:cluster [-- OPTION...]
Starts a node (see \`npm run cluster -- --help\`), tests the image and the chart in it, and ends it.

  --only TEXT    run only steps whose name contains TEXT; may be repeated
  --objects N    objects in the last measurement of memory, a multiple of 20 (default: 100000)
  --keep         leave the node running, and use one that runs
  --help         print this text
`;

interface Options {
  readonly only: readonly string[];
  readonly objects: number;
  readonly keep: boolean;
}

/** Returns the options, or an exit code. */
function parseOptions(): Options | number {
  try {
    const { values } = parseArgs({
      options: {
        only: { type: 'string', multiple: true, default: [] },
        objects: { type: 'string', default: '100000' },
        keep: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    const objects = Number(values.objects);
    if (!Number.isInteger(objects) || objects <= 0 || objects % 20 !== 0) {
      throw new Error(`--objects ${values.objects}: must be a multiple of 20`);
    }
    return { only: values.only, objects, keep: values.keep };
  } catch (error) {
    process.stderr.write(`test:cluster: ${errorMessage(error)}\n`);
    return EXIT_USAGE;
  }
}

async function main(): Promise<number> {
  const options = parseOptions();
  if (typeof options === 'number') return options;
  const env = process.env;
  const progress = createProgress(process.stderr, undefined, 'test:cluster');
  const before = await takeFootprint(nodeFolder(env));
  /** True once this process has started a node: it never ends another one. */
  let isStarted = false;
  const onStart = (): void => {
    isStarted = true;
    exitOnSignals(async () => {
      if (!options.keep) await stopNode(env);
    });
  };
  let passed = 0;
  let failed = 0;
  const print = (name: string, startedMs: number, rewritten: number | undefined, note: string): void => {
    const time = `${((performance.now() - startedMs) / 1000).toFixed(1)} s`;
    process.stdout.write(`| ${name} | ${time} | ${rewritten ?? ''} | ${note} |\n`);
  };
  /** Runs a step and prints its line; returns undefined if it has failed. */
  const step = async <T>(
    name: string,
    action: () => Promise<T>,
    read: (result: T) => { rewritten?: number; note?: string } = () => ({}),
  ): Promise<T | undefined> => {
    const startedMs = performance.now();
    progress.update(name);
    try {
      const result = await action();
      const { rewritten, note = '' } = read(result);
      if (rewritten !== undefined && rewritten > 0) {
        failed += 1;
        print(name, startedMs, rewritten, `FAILED: objects were rewritten; ${note}`);
      } else {
        passed += 1;
        print(name, startedMs, rewritten, note);
      }
      return result;
    } catch (error) {
      failed += 1;
      print(name, startedMs, undefined, `FAILED: ${errorMessage(error).replaceAll('\n', ' ')}`);
      return undefined;
    }
  };

  const helm3 = await resolveHelm3({ env, progress });
  process.stdout.write('| step | time | objects rewritten | result |\n| --- | --- | --- | --- |\n');
  const running = options.keep ? await findNode(env) : undefined;
  try {
    const node = running ?? (await step('node up', async () => await startNode({ env, progress }, onStart)));
    if (node === undefined) return EXIT_FAILURE;
    const builder = await createImageBuilder({ env, progress });
    const archive = await step('build the image', async () => await builder.buildOperator('dev'));
    if (archive === undefined) return EXIT_FAILURE;
    if (
      (await step('load the image', async () => {
        await loadImage(node, archive);
        return true;
      })) === undefined
    )
      return EXIT_FAILURE;
    const imageFiles = await createDisposableFolder(env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-cluster-');
    await builder.extract(`${OPERATOR_IMAGE}:dev`, imageFiles.path);
    const tools = await createClusterTools(node, helm3, (text) => progress.update(text));
    const { context, dispose } = await createContext({ tools, builder, imageFiles: imageFiles.path });
    try {
      for (const { name, run } of selectSteps(createSteps(options.objects), options.only)) {
        if (
          (await step(
            name,
            async () => await run(context),
            (result) => result,
          )) === undefined
        ) {
          process.stderr.write(`${await describeFailure(context)}\n`);
        }
      }
    } finally {
      await endFleet(context);
      await dispose();
      await tools.dispose();
      await imageFiles.dispose();
    }
  } finally {
    if (isStarted && !options.keep) {
      await step('node down', async () => await stopNode(env));
      await step('nothing is left behind', async () => {
        const difference = compareFootprints(before, await takeFootprint(nodeFolder(env)));
        if (difference.length > 0) throw new Error(difference.join(', '));
        return {};
      });
    }
    process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
  }
  return failed === 0 ? 0 : EXIT_FAILURE;
}

function selectSteps(steps: readonly Step[], only: readonly string[]): readonly Step[] {
  if (only.length === 0) return steps;
  // Everything happens in this namespace.
  return steps.filter(({ name }) => name.startsWith('namespace') || only.some((text) => name.includes(text)));
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof ClusterError) && !(error instanceof ControlPlaneError)) throw error;
  process.stderr.write(`test:cluster: ${error.message}\n`);
  process.exitCode = EXIT_FAILURE;
}
