import { expect } from 'chai';
import { parseSelftest } from '../../src/selftest/selftest.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { runOperatorToExit } from '../support/operator-process.ts';

describe('selftest command', () => {
  const controlPlane = useControlPlane();

  for (const [problem, args, message] of [
    ['an unknown flag', ['--nothing'], "unknown option '--nothing'"],
    ['an address without a port', ['--address', 'localhost'], '--address: "localhost" must be host:port'],
    [
      'a timeout that is too short',
      ['--timeout', '10ms'],
      '--timeout: "10ms" must be a duration from 1s to 1h',
    ],
    ['a name that a field selector does not accept', ['--reporter', 'a,b'], '--reporter: "a,b" must be'],
    [
      'a certificate without its key',
      ['--tls-ca', 'ca.crt', '--tls-cert', 'x'],
      '--tls-cert, --tls-key: must be set together',
    ],
    ['a server name without TLS', ['--tls-server-name', 'x'], '--tls-server-name: "x" requires --tls-ca'],
    ['a token without TLS', ['--token-file', 'x'], '--token-file: "x" requires --tls-ca'],
  ] as const) {
    it(`rejects ${problem} and names the flag`, () => {
      const parsed = parseSelftest(args);
      expect('errors' in parsed && parsed.errors.join('\n')).to.include(message);
    });
  }

  it('has a default for each flag', () => {
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
      '4s',
      ...args,
    ]);

  it('reports an unreachable service in one line with address and cause, and exits with 1', async () => {
    const { code, stderr } = await run('--address', '127.0.0.1:1');
    expect(code).to.equal(1);
    expect(stderr).to.match(/^selftest: failed: no ACK from 127\.0\.0\.1:1: .*ECONNREFUSED.* within 4 s\n$/);
  });

  it('reports a missing file in one line and exits with 1', async () => {
    const { code, stderr } = await run('--tls-ca', '/no/such/file');
    expect(code).to.equal(1);
    expect(stderr).to.match(/^selftest: failed: .*\/no\/such\/file.*\n$/);
  });
});
