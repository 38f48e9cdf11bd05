/** A condition of an object, as Kubernetes has it (metav1.Condition). */
export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  /** RFC 3339 to the second. */
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** What a condition says, apart from when it came to say so and of which generation. */
export type Meaning = Omit<Condition, 'lastTransitionTime' | 'observedGeneration'>;

/**
 * A condition that says this; the time of its last change stays where the status is the same.
 *
 * @param before the object's conditions by now
 * @param now RFC 3339 to the second
 */
export function conditionOf(
  meaning: Meaning,
  before: readonly Condition[] | undefined,
  now: string,
  observedGeneration: number,
): Condition {
  const was = before?.find(({ type }) => type === meaning.type);
  const lastTransitionTime = was?.status === meaning.status ? was.lastTransitionTime : now;
  return { ...meaning, lastTransitionTime, observedGeneration };
}
