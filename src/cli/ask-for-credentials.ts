import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import type { BasicCredentials } from '../k8s/kubeconfig-resolver.ts';

/**
 * Asks for a user name and a password on the terminal, as kubectl does for a user without credentials. The questions
 * go to standard error, and the password is not echoed. Rejects if the input ends first.
 */
export async function askForCredentials(): Promise<BasicCredentials> {
  let echoes = true;
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (echoes) process.stderr.write(chunk);
      done();
    },
  });
  // One interface for both lines: the terminal may deliver them together.
  const reader = createInterface({ input: process.stdin, output, terminal: true, prompt: '' });
  // In raw mode, the terminal sends Ctrl-C as a character.
  reader.once('SIGINT', () => {
    reader.close();
    process.kill(process.pid, 'SIGINT');
  });
  const lines = reader[Symbol.asyncIterator]();

  async function ask(question: string): Promise<string> {
    process.stderr.write(question);
    const { value, done } = await lines.next();
    if (done === true) throw new Error('no user name and password given');
    return value;
  }

  try {
    const username = await ask('Please enter Username: ');
    echoes = false;
    const password = await ask('Please enter Password: ');
    process.stderr.write('\n');
    return { username: username.trim(), password };
  } finally {
    reader.close();
  }
}
