import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { stringify } from 'yaml';
import {
  ConnectionError,
  type Connection,
  resolveConnection,
  type ConnectionOptions,
} from '../../src/k8s/connection.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** PEM with just enough content for these tests. */
const CA = '-----BEGIN CERTIFICATE-----\nQ0E=\n-----END CERTIFICATE-----\n';
const CA2 = CA.replace('Q0E=', 'Q0Ey');

const b64 = (text: string): string => Buffer.from(text).toString('base64');

function kubeconfig(cluster: object = {}, user: object = {}, context: object = {}): string {
  return stringify({
    'current-context': 'x',
    clusters: [
      {
        name: 'c',
        cluster: { server: 'https://c.example:6443', 'certificate-authority-data': b64(CA), ...cluster },
      },
    ],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', ...context } }],
  });
}

async function connectionErrorOf(attempt: Promise<Connection>): Promise<string> {
  const error: unknown = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).to.be.instanceOf(ConnectionError);
  const { message } = error as Error;
  expect(message).not.to.contain('\n');
  return message;
}

describe('connection to the API server', () => {
  let directory: string;
  let clock: FakeClock;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'connection-'));
    clock = new FakeClock(Date.now());
  });

  afterEach(() => rm(directory, { recursive: true }));

  function resolve(options: Partial<ConnectionOptions> = {}): Promise<Connection> {
    return resolveConnection({
      kubeconfig: undefined,
      env: { HOME: directory },
      clock,
      serviceAccountDirectory: join(directory, 'serviceaccount'),
      ...options,
    });
  }

  async function write(name: string, text: string): Promise<string> {
    const path = join(directory, name);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, text);
    return path;
  }

  /** Returns the error for a kubeconfig with this content. */
  async function errorOfKubeconfig(text: string): Promise<string> {
    const path = await write('rejected', text);
    const message = await connectionErrorOf(resolve({ kubeconfig: path }));
    expect(message.startsWith(`kubeconfig ${path}`), message).to.equal(true);
    return message.slice(`kubeconfig ${path}`.length);
  }

  describe('in a pod', () => {
    const env = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' };

    beforeEach(async () => {
      await write('serviceaccount/token', 'first\n');
      await write('serviceaccount/ca.crt', CA);
      await write('serviceaccount/namespace', 'tunnels\n');
    });

    it('uses the service account, even if a kubeconfig exists', async () => {
      await write('.kube/config', kubeconfig());
      const connection = await resolve({ env: { ...env, HOME: directory } });
      expect(connection.server.href).to.equal('https://10.96.0.1/');
      expect(connection).to.include({ namespace: 'tunnels', source: 'in-cluster', proxyUrl: undefined });
      expect(connection.credentials.current()).to.deep.equal({ ca: CA, authorization: 'Bearer first' });
    });

    it('writes an IPv6 address in URL form', async () => {
      const connection = await resolve({
        env: { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' },
      });
      expect(connection.server.href).to.equal('https://[fd00::1]:6443/');
    });

    it('reloads a rotated token within 10 s, and a rotated CA', async () => {
      const { credentials } = await resolve({ env });
      await write('serviceaccount/token', 'second\n');
      await write('serviceaccount/ca.crt', CA2);
      clock.advance(9_999);
      expect(credentials.current()).to.include({ authorization: 'Bearer first' });
      clock.advance(1);
      void credentials.current();
      let current = credentials.current();
      await eventually('the second token', () => {
        current = credentials.current();
        return !(current instanceof Promise) && current.authorization === 'Bearer second';
      });
      expect(current).to.deep.equal({ ca: CA2, authorization: 'Bearer second' });
    });

    it('reloads token and CA after a rejection', async () => {
      const { credentials } = await resolve({ env });
      await write('serviceaccount/token', 'second\n');
      await credentials.refresh();
      expect(credentials.current()).to.include({ authorization: 'Bearer second' });
    });

    it('works without a namespace file but not without a CA', async () => {
      await rm(join(directory, 'serviceaccount/namespace'));
      expect((await resolve({ env })).namespace).to.equal(undefined);
      await rm(join(directory, 'serviceaccount/ca.crt'));
      expect(await connectionErrorOf(resolve({ env }))).to.match(
        /^service account: ENOENT: .*serviceaccount\/ca\.crt/,
      );
    });

    // Node.js takes an empty CA for none and would trust every public authority.
    for (const [file, what] of [
      ['ca.crt', 'contains no certificate'],
      ['token', 'is empty'],
    ] as const) {
      it(`rejects an empty ${file} at the start and does not replace a valid one with it`, async () => {
        const { credentials } = await resolve({ env });
        const before = await credentials.current();
        const path = await write(`serviceaccount/${file}`, '\n');
        expect(await connectionErrorOf(resolve({ env }))).to.equal(`service account: ${path} ${what}`);
        clock.advance(10_000);
        void credentials.current();
        let message = '';
        await credentials.refresh().catch((error: Error) => {
          message = error.message;
        });
        expect(message).to.equal(`service account: ${path} ${what}`);
        expect(await credentials.current()).to.deep.equal(before);
      });
    }

    it('falls back to a kubeconfig if no token is mounted', async () => {
      await rm(join(directory, 'serviceaccount/token'));
      expect(await connectionErrorOf(resolve({ env: { ...env, HOME: directory } }))).to.equal(
        `no API server configured: no service account token in ${directory}/serviceaccount, KUBECONFIG is not set ` +
          `and ${directory}/.kube/config does not exist; set --kubeconfig`,
      );
    });
  });

  describe('with a kubeconfig', () => {
    it('uses the given kubeconfig and everything in its context', async () => {
      const path = await write(
        'given',
        kubeconfig(
          { 'tls-server-name': 'kube.local', 'proxy-url': 'http://proxy.example:3128' },
          { token: 'secret', as: 'alice' },
          { namespace: 'tunnels' },
        ),
      );
      const connection = await resolve({
        kubeconfig: path,
        env: { KUBECONFIG: '/nowhere', HOME: directory },
      });
      expect(connection.server.href).to.equal('https://c.example:6443/');
      expect(connection).to.include({
        namespace: 'tunnels',
        proxyUrl: 'http://proxy.example:3128',
        source: `kubeconfig ${path}, context x`,
      });
      const current = await connection.credentials.current();
      expect(current).to.include({
        ca: CA,
        serverName: 'kube.local',
        authorization: 'Bearer secret',
      });
      expect(current.impersonation).to.include({ user: 'alice' });
    });

    it('reads certificates from data and from files relative to the kubeconfig', async () => {
      await write('u.key', 'KEY');
      const path = await write(
        'given',
        kubeconfig({}, { 'client-certificate-data': b64('CERT'), 'client-key': 'u.key' }),
      );
      const { credentials } = await resolve({ kubeconfig: path });
      expect(await credentials.current()).to.include({ ca: CA, cert: 'CERT', key: 'KEY' });
      await write('u.key', 'KEY2');
      await credentials.refresh();
      expect(await credentials.current()).to.include({ key: 'KEY2' });
    });

    it('uses the existing files of KUBECONFIG, otherwise the one in the home directory', async () => {
      const first = await write('first', stringify({ contexts: [] }));
      const second = await write('second', kubeconfig({}, { token: 'two' }));
      await write('.kube/config', kubeconfig({}, { token: 'home' }, { namespace: 'at-home' }));
      const listed = await resolve({
        env: { KUBECONFIG: `${directory}/none:${first}:${second}`, HOME: directory },
      });
      expect(listed.source).to.equal(`kubeconfig ${first}, ${second}, context x`);
      expect(await listed.credentials.current()).to.include({ authorization: 'Bearer two' });
      expect((await resolve()).namespace).to.equal('at-home');
    });

    it('reloads a token file, such as a mounted token', async () => {
      await write('token', 'first\n');
      const path = await write('given', kubeconfig({}, { token: 'stale', tokenFile: 'token' }));
      const { credentials } = await resolve({ kubeconfig: path });
      expect(await credentials.current()).to.include({ authorization: 'Bearer first' });
      await write('token', 'second\n');
      clock.advance(10_000);
      await eventually('the second token', () => {
        const current = credentials.current();
        return !(current instanceof Promise) && current.authorization === 'Bearer second';
      });
      expect(await credentials.current()).to.include({ ca: CA });
    });

    it('runs an exec plugin with the input that its protocol requires, and again when its token expires', async () => {
      const plugin = await write(
        'bin/plugin',
        `#!/bin/sh
n=$(cat "${directory}/count" 2>/dev/null || echo 0); echo $((n + 1)) > "${directory}/count"
echo "$KUBERNETES_EXEC_INFO" > "${directory}/info"
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'"$1$n"'","expirationTimestamp":"2099-01-01T00:00:00Z"}}'
`,
      );
      await chmod(plugin, 0o700);
      const path = await write(
        'given',
        kubeconfig(
          {},
          {
            exec: {
              apiVersion: 'client.authentication.k8s.io/v1',
              interactiveMode: 'IfAvailable',
              command: './bin/plugin',
              args: ['token-'],
              provideClusterInfo: true,
            },
          },
        ),
      );
      const { credentials } = await resolve({ kubeconfig: path });
      expect(await credentials.current()).to.include({
        authorization: 'Bearer token-0',
        expiresAtMs: Date.UTC(2099, 0, 1),
      });
      expect(JSON.parse(await readFile(join(directory, 'info'), 'utf8'))).to.deep.equal({
        apiVersion: 'client.authentication.k8s.io/v1',
        kind: 'ExecCredential',
        spec: {
          interactive: false,
          cluster: { server: 'https://c.example:6443', 'certificate-authority-data': b64(CA), config: null },
        },
      });
      clock.advance(Date.UTC(2099, 0, 1) - clock.wallMs());
      const renewed = credentials.current();
      expect(renewed).to.be.instanceOf(Promise);
      expect(await renewed).to.include({ authorization: 'Bearer token-1' });
    });

    it('keeps its credentials and reports an error if the server changed', async () => {
      const path = await write('given', kubeconfig({}, { token: 'one' }));
      const { credentials } = await resolve({ kubeconfig: path });
      await writeFile(path, kubeconfig({ server: 'https://other.example' }, { token: 'for another' }));
      let message = '';
      await credentials.refresh().catch((error: Error) => {
        message = error.message;
      });
      expect(message).to.equal(
        `kubeconfig ${path}: server changed from https://c.example:6443/ to https://other.example/; restart to apply it`,
      );
      expect(await credentials.current()).to.include({ authorization: 'Bearer one' });
    });
  });

  describe('rejected kubeconfigs', () => {
    it('rejects a missing file', async () => {
      const path = join(directory, 'none');
      expect(await connectionErrorOf(resolve({ kubeconfig: path }))).to.equal(
        `kubeconfig ${path}: no such file`,
      );
      expect(await connectionErrorOf(resolve({ env: { KUBECONFIG: `${path}:${path}2` } }))).to.equal(
        `KUBECONFIG=${path}:${path}2: no such file`,
      );
      expect(await connectionErrorOf(resolve())).to.contain('not in a pod, KUBECONFIG is not set and ');
    });

    it('rejects a directory', async () => {
      expect(await connectionErrorOf(resolve({ kubeconfig: directory }))).to.contain('EISDIR');
    });

    it('rejects a kubeconfig without an API server', async () => {
      expect(await errorOfKubeconfig('%')).to.contain(': invalid YAML: ');
      expect(await errorOfKubeconfig('{}')).to.contain(': current-context is not set');
      expect(await errorOfKubeconfig(kubeconfig({ server: '' }))).to.equal(
        ': context x: cluster has no server',
      );
      expect(await errorOfKubeconfig(kubeconfig({ server: 'c.example' }))).to.equal(
        ', context x: server c.example is not a URL',
      );
    });

    it('rejects plain HTTP and skipped verification', async () => {
      const noCa = { 'certificate-authority-data': undefined };
      expect(await errorOfKubeconfig(kubeconfig({ server: 'http://localhost:8001' }))).to.equal(
        ', context x: server http://localhost:8001 is not https; credentials are never sent in plaintext',
      );
      expect(await errorOfKubeconfig(kubeconfig({ ...noCa, 'insecure-skip-tls-verify': true }))).to.equal(
        ', context x: insecure-skip-tls-verify is not supported; set certificate-authority-data instead',
      );
    });

    it('rejects a proxy that it cannot use', async () => {
      expect(await errorOfKubeconfig(kubeconfig({ 'proxy-url': 'ftp://p' }))).to.equal(
        ', context x: cluster c: proxy-url ftp://p must be http, https or socks5',
      );
    });

    it('rejects a CA without a certificate and an empty token file instead of falling back', async () => {
      await write('empty', '');
      const noCertificate = ', context x: certificate-authority of the cluster contains no certificate';
      const byFile = { 'certificate-authority-data': undefined, 'certificate-authority': 'empty' };
      expect(await errorOfKubeconfig(kubeconfig(byFile, { token: 'x' }))).to.equal(noCertificate);
      const garbage = { 'certificate-authority-data': b64('CA') };
      expect(await errorOfKubeconfig(kubeconfig(garbage, { token: 'x' }))).to.equal(noCertificate);
      expect(await errorOfKubeconfig(kubeconfig({}, { tokenFile: 'empty' }))).to.equal(
        `, context x: token file ${directory}/empty is empty`,
      );
    });

    it('omits secrets from its errors', async () => {
      const secret = 'my-secret-token';
      const apiVersion = 'client.authentication.k8s.io/v1';
      const base = { apiVersion, interactiveMode: 'Never' };
      const exec = { ...base, command: 'echo', args: [secret] };
      expect(await errorOfKubeconfig(kubeconfig({}, { exec }))).to.equal(
        ', context x: exec plugin echo printed invalid JSON',
      );
      const failing = { ...base, command: 'sh', args: ['-c', `echo "sent Bearer ${secret}" >&2; exit 1`] };
      expect(await errorOfKubeconfig(kubeconfig({}, { exec: failing }))).to.equal(
        ', context x: exec plugin sh failed with exit code 1: sent [credentials]',
      );
      expect(await errorOfKubeconfig(kubeconfig({ server: `https://me:${secret}@c.example` }))).to.equal(
        ', context x: server URL must not contain a password',
      );
      for (const proxyUrl of [`ftp://me:${secret}@p:1`, `me:${secret}@p:1`]) {
        expect(await errorOfKubeconfig(kubeconfig({ 'proxy-url': proxyUrl }))).not.to.contain(secret);
      }
    });

    it('reports an unreadable file and a failed plugin', async () => {
      expect(await errorOfKubeconfig(kubeconfig({}, { tokenFile: 'gone' }))).to.match(
        /, context x: ENOENT: .*\/gone/,
      );
      const gone = { 'certificate-authority-data': undefined, 'certificate-authority': 'gone.crt' };
      expect(await errorOfKubeconfig(kubeconfig(gone))).to.match(/, context x: ENOENT: .*\/gone\.crt/);
      const exec = {
        apiVersion: 'client.authentication.k8s.io/v1',
        interactiveMode: 'Never',
        command: 'no-such-plugin',
        installHint: 'get it\nfrom the shelf',
      };
      expect(await errorOfKubeconfig(kubeconfig({}, { exec }))).to.equal(
        ', context x: exec plugin no-such-plugin: executable not found; get it from the shelf',
      );
      const failing = { ...exec, command: 'sh', args: ['-c', 'echo "please log in" >&2; exit 1'] };
      expect(await errorOfKubeconfig(kubeconfig({}, { exec: failing }))).to.equal(
        ', context x: exec plugin sh failed with exit code 1: please log in',
      );
    });
  });
});
