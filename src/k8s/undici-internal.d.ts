/**
 * undici's single files, which it ships without types and without an `exports` map that would forbid them. Why they are
 * imported one by one: docs/decisions/0003-api-client-and-kubeconfig.md. A test guards that they exist.
 */
declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici';
  const constructor: typeof Pool;
  export default constructor;
}
