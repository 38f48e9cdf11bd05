/**
 * The environment with which Node keeps the code that it has compiled, for the programs that many tests start from their
 * sources: most of the second that a start takes is spent on it.
 */
export const COMPILE_CACHE = {
  NODE_COMPILE_CACHE: new URL('../../node_modules/.cache/test-programs', import.meta.url).pathname,
};
