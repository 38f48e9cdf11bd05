/** The attacker, in a process of its own: what it does must not keep the steady reporter waiting. */
import { runAttack } from '../test/support/attacks/attack.ts';
import { ATTACKS } from '../test/support/attacks/all.ts';
import { serveParent } from './child.ts';

export interface Attacker {
  /** Attacks for so long; resolves with the rounds that were begun. */
  run(attack: { readonly address: string; readonly name: string; readonly ms: number }): Promise<number>;
}

serveParent<Attacker>({
  async run({ address, name, ms }) {
    const chosen = ATTACKS.find((one) => one.name === name);
    if (chosen === undefined) throw new Error(`there is no attack that ${name}`);
    return runAttack(address, chosen, AbortSignal.timeout(ms));
  },
});
