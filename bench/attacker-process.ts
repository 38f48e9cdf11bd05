/** The attacker, in a separate process, so that its work does not delay the steady reporter. */
import { runAttack } from '../test/support/attack.ts';
import { ATTACKS } from '../test/integration/attacks/all.ts';
import { serveParent } from './child.ts';

export interface Attacker {
  /** Attacks for `ms`; resolves with the number of started rounds. */
  run(attack: { readonly address: string; readonly name: string; readonly ms: number }): Promise<number>;
}

serveParent<Attacker>({
  async run({ address, name, ms }) {
    const chosen = ATTACKS.find((candidate) => candidate.name === name);
    if (chosen === undefined) throw new Error(`no attack is named ${name}`);
    return runAttack(address, chosen, AbortSignal.timeout(ms));
  },
});
