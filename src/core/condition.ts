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
export type ConditionContent = Omit<Condition, 'lastTransitionTime' | 'observedGeneration'>;

/**
 * A condition that says this; the time of its last change stays where the status is the same.
 *
 * @param conditions the object's conditions by now
 * @param now RFC 3339 to the second
 */
export function buildCondition(
  content: ConditionContent,
  conditions: readonly Condition[] | undefined,
  now: string,
  observedGeneration: number,
): Condition {
  const previous = conditions?.find(({ type }) => type === content.type);
  const lastTransitionTime = previous?.status === content.status ? previous.lastTransitionTime : now;
  return { ...content, lastTransitionTime, observedGeneration };
}
