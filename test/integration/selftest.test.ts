import { expect } from 'chai';
import { parseSelftest } from '../../src/selftest/options.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { runOperatorToExit } from '../support/operator-process.ts';

describe('selftest, the body of helm test', () => {
  const controlPlane = useControlPlane();

  for (const [what, args, said] of [
    ['an unknown flag', ['--nothing'], "Unknown option '--nothing'"],
    ['no port', ['--address', 'localhost'], '--address: "localhost" is not host:port'],
    [
      'a time-out that is too short',
      ['--timeout', '10ms'],
      '--timeout 10ms: must be a duration from 1s to 1h',
    ],
    ['a name that a selector would not take', ['--reporter', 'a,b'], '--reporter a,b: must be'],
    [
      'a certificate without its key',
      ['--tls-ca', 'ca.crt', '--tls-cert', 'x'],
      '--tls-cert and --tls-key: both',
    ],
    ['a name in plaintext', ['--tls-server-name', 'x'], '--tls-server-name: is of no use'],
    ['a token in plaintext', ['--token-file', 'x'], '--tls-ca: has to be given'],
  ] as const) {
    it(`refuses ${what}, by name`, () => {
      const parsed = parseSelftest(args);
      expect('errors' in parsed && parsed.errors.join('\n')).to.include(said);
    });
  }

  it('takes the usual for what is left out', () => {
    const parsed = parseSelftest(['--tls-ca', 'ca.crt']);
    expect('options' in parsed && parsed.options).to.deep.include({
      address: '127.0.0.1:18000',
      reporter: 'selftest',
      timeoutMs: 60_000,
      identityFiles: {
        caFile: 'ca.crt',
        certFile: undefined,
        keyFile: undefined,
        serverName: undefined,
        tokenFile: undefined,
      },
    });
  });

  const run = (...args: string[]) =>
    runOperatorToExit([
      'selftest',
      '--kubeconfig',
      controlPlane().kubeconfigPath,
      '--timeout',
      '1s',
      ...args,
    ]);

  it('nobody listens: exit code 1, and one line that says where and why', async () => {
    const { code, stderr } = await run('--address', '127.0.0.1:1');
    expect(code).to.equal(1);
    expect(stderr).to.match(/^selftest: failed: no ACK from 127\.0\.0\.1:1: .*ECONNREFUSED.* within 1 s\n$/);
  });

  it('a file that is not there: exit code 1, and one line that names it', async () => {
    const { code, stderr } = await run('--tls-ca', '/no/such/file');
    expect(code).to.equal(1);
    expect(stderr).to.match(/^selftest: failed: .*\/no\/such\/file.*\n$/);
  });
});
