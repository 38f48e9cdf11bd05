import { tell } from './tell.ts';

/** What scenarios have in common, and each has one of its own: a namespace, replicas, a folder. */
export interface Worlds<World> {
  /** For each scenario, from the start of all; also for its world's opening and closing. */
  readonly timeoutMs: number;
  open(): Promise<World>;
  close(world: World): Promise<unknown>;
}

/** A test that may run while others of its `describe` do. What it tells is shown with its own line. */
type Scenario<World> = (world: World, told: (text: string) => void) => Promise<void>;

interface Outcome {
  readonly said: readonly string[];
  /** There when it failed. */
  readonly error?: unknown;
}

/**
 * For tests that mostly wait, because a Lease has to run out or a minute has to pass in which nobody writes: all of a
 * `describe` begin together and each `it` reports its own, so that the suite takes as long as the longest of them. Not for
 * what is measured, nor for what takes CPU: it would slow the others down.
 *
 * To be called in a `describe`, after the hooks that its scenarios need; gives what takes the place of `it`.
 */
export function sideBySide<World>(worlds: Worlds<World>): (title: string, scenario: Scenario<World>) => void {
  const scenarios: Scenario<World>[] = [];
  let outcomes: Promise<Outcome>[] = [];

  before('all scenarios begin', () => {
    outcomes = scenarios.map((scenario) => outcomeOf(worlds, scenario));
  });
  // One that its test gave up must not go on beside the tests that follow.
  after('all scenarios have ended', async function () {
    this.timeout(worlds.timeoutMs);
    await Promise.all(outcomes);
  });

  return (title, scenario) => {
    const index = scenarios.push(scenario) - 1;
    it(title, async function () {
      this.timeout(worlds.timeoutMs);
      const outcome = await outcomes[index];
      if (outcome === undefined) throw new Error('it was not begun');
      for (const text of outcome.said) tell(text);
      if ('error' in outcome) throw outcome.error;
    });
  };
}

/** Never rejects: a failure is kept for the test that owns it, which may wait for it only later. */
async function outcomeOf<World>(worlds: Worlds<World>, scenario: Scenario<World>): Promise<Outcome> {
  const said: string[] = [];
  try {
    const world = await worlds.open();
    try {
      await scenario(world, (text) => said.push(text));
    } finally {
      await worlds.close(world);
    }
    return { said };
  } catch (error) {
    return { said, error };
  }
}
