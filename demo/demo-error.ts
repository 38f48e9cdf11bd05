/** The demo cannot go on, or has shown something untrue; the message says what, for a person. */
export class DemoError extends Error {
  override readonly name = 'DemoFailure';
}
