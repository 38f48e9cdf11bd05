/** An invalid field, as in `details.causes` of a response. */
export interface FieldError {
  readonly reason: string;
  readonly message: string;
  /** A path such as `spec.rules[0].peers`. */
  readonly field: string;
}
