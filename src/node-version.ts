/** The oldest Node that runs this program; the same as `engines` in package.json. */
export const MIN_NODE_VERSION = '24.14.1';

/**
 * Checks the version of Node. If it is too old, prints one line and sets the exit code to 1. This file must be
 * understood by every Node that supports ES modules, so it imports nothing.
 *
 * @param program name in the message
 * @returns whether the program can continue
 */
export function checkNodeVersion(program: string): boolean {
  const { node } = process.versions;
  if (compareVersions(node, MIN_NODE_VERSION) >= 0) return true;
  process.stderr.write(
    `${program}: Node ${node} is too old; ${MIN_NODE_VERSION} or later is required (${process.execPath})\n`,
  );
  process.exitCode = 1;
  return false;
}

/** Compares dotted versions by their numbers; a suffix such as `-nightly` is ignored. */
function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => version.split('.').map((part) => Number.parseInt(part, 10)));
  for (let i = 0; i < 3; i += 1) {
    const difference = (left?.[i] || 0) - (right?.[i] || 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
