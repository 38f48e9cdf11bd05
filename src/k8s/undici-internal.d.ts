/**
 * Single files of undici, which have no types and are not restricted by an `exports` map. The reason for importing
 * them separately is in docs/decisions/0003-api-client-and-kubeconfig.md. A test checks that they exist.
 */
declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici';
  const constructor: typeof Pool;
  export default constructor;
}
