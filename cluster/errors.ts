/** The error that `npm run cluster` and `npm run test:cluster` report in one line. */

/** The cluster cannot be provided or does not run. One line for the user, with what to do. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError';
}
