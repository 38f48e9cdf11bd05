import { createServer, type AddressInfo } from 'node:net';
import { expect } from 'chai';
import { useControlPlane } from '../support/control-plane.ts';
import { runOperatorToExit } from '../support/operator-process.ts';

describe('an invalid command line or environment of the operator', () => {
  const controlPlane = useControlPlane();
  const ports = ['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'];

  it('reports an invalid value in one line with flag, value and range, and exits with 2', async () => {
    const { code, stderr } = await runOperatorToExit(['--auth', 'insecure', '--report-interval', '2h']);
    expect(stderr.split('\n')[0]).to.equal(
      'reverse-tunnel-operator: --report-interval: "2h" must be a duration from 25ms to 1h, such as 250ms, 30s or 5m',
    );
    expect(code).to.equal(2);
  });

  it('exits with 2 if --auth is missing', async () => {
    const { code, stderr } = await runOperatorToExit([]);
    expect(stderr).to.include('auth: must be one of');
    expect(code).to.equal(2);
  });

  it('exits with 2 for an unknown flag', async () => {
    const { code, stderr } = await runOperatorToExit(['--no-such-flag']);
    expect(stderr).to.include("unknown option '--no-such-flag'");
    expect(code).to.equal(2);
  });

  it('reports a missing kubeconfig in one line and exits with 1', async () => {
    const { code, stderr } = await runOperatorToExit([
      '--auth',
      'insecure',
      '--kubeconfig',
      '/no/such/file',
      ...ports,
    ]);
    expect(stderr).to.equal('reverse-tunnel-operator: kubeconfig /no/such/file: no such file\n');
    expect(code).to.equal(1);
  });

  for (const flag of ['--grpc-address', '--http-address']) {
    it(`reports a port in use for ${flag} in one line with a hint, and exits with 1`, async () => {
      const other = createServer();
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
      const address = `127.0.0.1:${(other.address() as AddressInfo).port}`;
      const { kubeconfigPath } = controlPlane();
      const flags = ['--auth', 'insecure', '--kubeconfig', kubeconfigPath, ...ports, flag, address];
      const { code, stderr } = await runOperatorToExit(flags);
      await new Promise((resolve) => other.close(resolve));
      expect(stderr.trim().split('\n')).to.have.length(1);
      expect(stderr).to.include(address).and.include('EADDRINUSE').and.include(`set another ${flag}`);
      expect(code).to.equal(1);
    });
  }
});
