import { rm, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { build, type Plugin } from 'esbuild';

const ROOT = join(import.meta.dirname, '..');
/** The programs of the package: those in package.json, one that the operator runs, and one that the build runs. */
export const PROGRAMS = [
  'src/main.ts',
  'src/kubectl-rt.ts',
  'src/kubectl-complete-rt.ts',
  'src/k8s/oidc-process.ts',
  'build/warm-up.ts',
];
/**
 * Packages that are loaded from node_modules at run time: each is used rarely, and the first two find files next to
 * themselves. The last one alone would have 16 MB.
 */
const EXTERNAL = ['@grpc/proto-loader', '@grpc/reflection', '@kubernetes/client-node'];
/** The oldest supported Node: see `engines` in package.json. */
const TARGET = 'node24.14';

/**
 * Bundles programs into a folder, which is emptied first, with the libraries that they use. Every module that is imported
 * dynamically becomes a file of its own, so that it is loaded only when it is used.
 *
 * CommonJS, because each ES module that imports `node:http` makes Node load its implementation of `fetch`.
 *
 * @param programs absolute, or relative to the root of the repository
 */
export async function bundle(programs: readonly string[], outputFolder: string): Promise<void> {
  await rm(outputFolder, { recursive: true, force: true });
  const built = new Set<string>();
  let entries = new Set(programs.map((program) => resolve(ROOT, program)));
  while (entries.size > 0) {
    const found = new Set<string>();
    await build({
      absWorkingDir: ROOT,
      entryPoints: [...entries].map((path) => ({ in: path, out: basename(path, '.ts') })),
      outdir: outputFolder,
      bundle: true,
      platform: 'node',
      format: 'cjs',
      target: TARGET,
      // Turns `import()` into `require`, which does not need Node's loader of ES modules.
      supported: { 'dynamic-import': false },
      external: EXTERNAL,
      define: { 'import.meta.url': 'bundleUrl' },
      banner: { js: "const bundleUrl = require('node:url').pathToFileURL(__filename).href;" },
      sourcemap: 'linked',
      sourcesContent: false,
      legalComments: 'none',
      plugins: [separateDynamicImports(found)],
      logLevel: 'warning',
    });
    for (const path of entries) built.add(path);
    entries = new Set([...found].filter((path) => !built.has(path)));
  }
  // The package contains ES modules otherwise.
  await writeFile(join(outputFolder, 'package.json'), '{ "type": "commonjs" }\n');
}

/** Adds the modules of the package that are imported dynamically to `found`, and leaves the imports in place. */
function separateDynamicImports(found: Set<string>): Plugin {
  return {
    name: 'separate-dynamic-imports',
    setup(context) {
      context.onResolve({ filter: /^\.\.?\// }, ({ kind, path, resolveDir }) => {
        if (kind !== 'dynamic-import' && kind !== 'require-call') return undefined;
        if (!path.endsWith('.ts')) return undefined;
        found.add(join(resolveDir, path));
        return { path: `./${basename(path, '.ts')}.js`, external: true };
      });
    },
  };
}
