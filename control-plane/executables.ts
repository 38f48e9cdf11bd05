/** Programs that are already on this machine. */
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** Returns whether `path` is a file that this process may execute. */
export async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Returns the first folder of the PATH that has all programs, or undefined if none has. */
export async function findInPath(
  programs: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<string | undefined> {
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    if (folder !== '' && (await findMissing(folder, programs)) === undefined) return folder;
  }
  return undefined;
}

/** Returns the first of `names` that is not an executable file in `folder`, or undefined if all of them are. */
export async function findMissing<N extends string>(
  folder: string,
  names: readonly N[],
): Promise<N | undefined> {
  for (const name of names) {
    if (!(await isExecutable(join(folder, name)))) return name;
  }
  return undefined;
}
