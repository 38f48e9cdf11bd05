/** The demo cannot continue, or a step had an unexpected result. */
export class DemoError extends Error {
  override readonly name = 'DemoError';
}
