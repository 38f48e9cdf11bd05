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

/** PEM as far as it is looked at here. */
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

async function errorOf(attempt: Promise<Connection>): Promise<string> {
  const error: unknown = await attempt.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).to.be.instanceOf(ConnectionError);
  const { message } = error as Error;
  expect(message).not.to.contain('\n');
  return message;
}

describe('way to the API server', () => {
  let folder: string;
  let clock: FakeClock;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'connection-'));
    clock = new FakeClock(Date.now());
  });

  afterEach(() => rm(folder, { recursive: true }));

  function resolve(options: Partial<ConnectionOptions> = {}): Promise<Connection> {
    return resolveConnection({
      kubeconfig: undefined,
      env: { HOME: folder },
      clock,
      serviceAccountDirectory: join(folder, 'serviceaccount'),
      ...options,
    });
  }

  async function write(name: string, text: string): Promise<string> {
    const path = join(folder, name);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, text);
    return path;
  }

  /** The error for a kubeconfig of this content. */
  async function refusalOf(text: string): Promise<string> {
    const path = await write('refused', text);
    const message = await errorOf(resolve({ kubeconfig: path }));
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

    it('is the service account, also when a kubeconfig is lying about', async () => {
      await write('.kube/config', kubeconfig());
      const connection = await resolve({ env: { ...env, HOME: folder } });
      expect(connection.server.href).to.equal('https://10.96.0.1/');
      expect(connection).to.include({ namespace: 'tunnels', source: 'in-cluster', proxyUrl: undefined });
      expect(connection.credentials.current()).to.deep.equal({ ca: CA, authorization: 'Bearer first' });
    });

    it('writes an IPv6 address as a URL has it', async () => {
      const connection = await resolve({
        env: { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' },
      });
      expect(connection.server.href).to.equal('https://[fd00::1]:6443/');
    });

    it('reads a rotated token within 10 s, and a rotated CA', async () => {
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

    it('reads both at once when they were refused', async () => {
      const { credentials } = await resolve({ env });
      await write('serviceaccount/token', 'second\n');
      await credentials.refresh();
      expect(credentials.current()).to.include({ authorization: 'Bearer second' });
    });

    it('does without a namespace file, but not without a CA', async () => {
      await rm(join(folder, 'serviceaccount/namespace'));
      expect((await resolve({ env })).namespace).to.equal(undefined);
      await rm(join(folder, 'serviceaccount/ca.crt'));
      expect(await errorOf(resolve({ env }))).to.match(/^service account: ENOENT: .*serviceaccount\/ca\.crt/);
    });

    // To Node an empty CA is no CA, and it would trust whoever a public authority has signed for.
    for (const [file, what] of [
      ['ca.crt', 'contains no certificate'],
      ['token', 'is empty'],
    ] as const) {
      it(`does not take an empty ${file}: not at the start, and not in place of a good one`, async () => {
        const { credentials } = await resolve({ env });
        const before = await credentials.current();
        const path = await write(`serviceaccount/${file}`, '\n');
        expect(await errorOf(resolve({ env }))).to.equal(`service account: ${path} ${what}`);
        clock.advance(10_000);
        void credentials.current();
        let said = '';
        await credentials.refresh().catch((error: Error) => {
          said = error.message;
        });
        expect(said).to.equal(`service account: ${path} ${what}`);
        expect(await credentials.current()).to.deep.equal(before);
      });
    }

    it('falls back to a kubeconfig when no token is mounted', async () => {
      await rm(join(folder, 'serviceaccount/token'));
      expect(await errorOf(resolve({ env: { ...env, HOME: folder } }))).to.equal(
        `no API server configured: no service account token in ${folder}/serviceaccount, KUBECONFIG is not set ` +
          `and ${folder}/.kube/config does not exist; set --kubeconfig`,
      );
    });
  });

  describe('by a kubeconfig', () => {
    it('is the one given, with all that its context says', async () => {
      const path = await write(
        'given',
        kubeconfig(
          { 'tls-server-name': 'kube.local', 'proxy-url': 'http://proxy.example:3128' },
          { token: 'secret', as: 'somebody' },
          { namespace: 'tunnels' },
        ),
      );
      const connection = await resolve({ kubeconfig: path, env: { KUBECONFIG: '/nowhere', HOME: folder } });
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
        impersonateUser: 'somebody',
      });
    });

    it('reads certificates from data and from files beside it', async () => {
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

    it('is that of KUBECONFIG, of whose files some may be missing, else the one at home', async () => {
      const first = await write('first', stringify({ contexts: [] }));
      const second = await write('second', kubeconfig({}, { token: 'two' }));
      await write('.kube/config', kubeconfig({}, { token: 'home' }, { namespace: 'at-home' }));
      const listed = await resolve({
        env: { KUBECONFIG: `${folder}/none:${first}:${second}`, HOME: folder },
      });
      expect(listed.source).to.equal(`kubeconfig ${first}, ${second}, context x`);
      expect(await listed.credentials.current()).to.include({ authorization: 'Bearer two' });
      expect((await resolve()).namespace).to.equal('at-home');
    });

    it('reads a token file again, as a mounted token has it', async () => {
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

    it('asks an exec plugin, tells it what its protocol has it told, and asks again when its token expires', async () => {
      const plugin = await write(
        'bin/plugin',
        `#!/bin/sh
n=$(cat "${folder}/count" 2>/dev/null || echo 0); echo $((n + 1)) > "${folder}/count"
echo "$KUBERNETES_EXEC_INFO" > "${folder}/info"
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
      expect(JSON.parse(await readFile(join(folder, 'info'), 'utf8'))).to.deep.equal({
        apiVersion: 'client.authentication.k8s.io/v1',
        kind: 'ExecCredential',
        spec: {
          interactive: false,
          cluster: { server: 'https://c.example:6443', 'certificate-authority-data': b64(CA) },
        },
      });
      clock.advance(Date.UTC(2099, 0, 1) - clock.wallMs());
      const renewed = credentials.current();
      expect(renewed).to.be.instanceOf(Promise);
      expect(await renewed).to.include({ authorization: 'Bearer token-1' });
    });

    it('keeps what it has when the server moved, and says so', async () => {
      const path = await write('given', kubeconfig({}, { token: 'one' }));
      const { credentials } = await resolve({ kubeconfig: path });
      await writeFile(path, kubeconfig({ server: 'https://other.example' }, { token: 'for another' }));
      let said = '';
      await credentials.refresh().catch((error: Error) => {
        said = error.message;
      });
      expect(said).to.equal(
        `kubeconfig ${path}: server changed from https://c.example:6443 to https://other.example; restart to apply it`,
      );
      expect(await credentials.current()).to.include({ authorization: 'Bearer one' });
    });
  });

  describe('refused', () => {
    it('when a file is missing', async () => {
      const path = join(folder, 'none');
      expect(await errorOf(resolve({ kubeconfig: path }))).to.equal(`kubeconfig ${path}: no such file`);
      expect(await errorOf(resolve({ env: { KUBECONFIG: `${path}:${path}2` } }))).to.equal(
        `KUBECONFIG=${path}:${path}2: no such file`,
      );
      expect(await errorOf(resolve())).to.contain('not in a pod, KUBECONFIG is not set and ');
    });

    it('when it is a folder', async () => {
      expect(await errorOf(resolve({ kubeconfig: folder }))).to.contain('EISDIR');
    });

    it('when it does not say which API server', async () => {
      expect(await refusalOf('%')).to.contain(': invalid YAML: ');
      expect(await refusalOf('{}')).to.contain(': current-context is not set');
      expect(await refusalOf(kubeconfig({ server: '' }))).to.equal(', context x: cluster has no server');
      expect(await refusalOf(kubeconfig({ server: 'c.example' }))).to.equal(
        ', context x: server c.example is not a URL',
      );
    });

    it('when it would send credentials in plain text, or to whoever answers', async () => {
      expect(await refusalOf(kubeconfig({ server: 'http://localhost:8001' }))).to.equal(
        ', context x: server http://localhost:8001 is not https; credentials are never sent in plaintext',
      );
      expect(await refusalOf(kubeconfig({ 'insecure-skip-tls-verify': true }))).to.equal(
        ', context x: insecure-skip-tls-verify is not supported; set certificate-authority-data instead',
      );
    });

    it('when it wants what is not supported, rather than going without', async () => {
      expect(await refusalOf(kubeconfig({}, { token: 'x', 'as-groups': ['admins'] }))).to.equal(
        ', context x: user field as-groups is not supported',
      );
      expect(await refusalOf(kubeconfig({ 'proxy-url': 'ftp://p' }))).to.equal(
        ', context x: proxy-url ftp://p must be http, https or socks5',
      );
    });

    it('when its CA is no certificate, or its token file is empty, rather than trusting or being anybody', async () => {
      await write('empty', '');
      const noCertificate = ', context x: certificate-authority of the cluster contains no certificate';
      const byFile = { 'certificate-authority-data': undefined, 'certificate-authority': 'empty' };
      expect(await refusalOf(kubeconfig(byFile, { token: 'x' }))).to.equal(noCertificate);
      const garbage = { 'certificate-authority-data': b64('CA') };
      expect(await refusalOf(kubeconfig(garbage, { token: 'x' }))).to.equal(noCertificate);
      expect(await refusalOf(kubeconfig({}, { tokenFile: 'empty' }))).to.equal(
        `, context x: token file ${folder}/empty is empty`,
      );
    });

    it('without a word of the secrets in it', async () => {
      const secret = 'my-secret-token';
      const apiVersion = 'client.authentication.k8s.io/v1';
      const exec = { apiVersion, command: 'echo', args: [secret] };
      expect(await refusalOf(kubeconfig({}, { exec }))).to.equal(
        ', context x: the exec plugin echo printed invalid JSON',
      );
      const failing = { apiVersion, command: 'sh', args: ['-c', `echo "sent Bearer ${secret}" >&2; exit 1`] };
      expect(await refusalOf(kubeconfig({}, { exec: failing }))).to.equal(', context x: sent [credentials]');
      expect(await refusalOf(kubeconfig({ server: `https://me:${secret}@c.example` }))).to.equal(
        ', context x: server URL must not contain a password',
      );
      for (const proxyUrl of [`ftp://me:${secret}@p:1`, `me:${secret}@p:1`]) {
        expect(await refusalOf(kubeconfig({ 'proxy-url': proxyUrl }))).not.to.contain(secret);
      }
    });

    it('when a file that it names cannot be read, or its plugin fails', async () => {
      expect(await refusalOf(kubeconfig({}, { tokenFile: 'gone' }))).to.match(
        /, context x: ENOENT: .*\/gone/,
      );
      expect(await refusalOf(kubeconfig({ 'certificate-authority': 'gone.crt' }))).to.match(
        /, context x: ENOENT: .*\/gone\.crt/,
      );
      const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: 'no-such-plugin' };
      expect(await refusalOf(kubeconfig({}, { exec }))).to.equal(', context x: spawn no-such-plugin ENOENT');
      const failing = { ...exec, command: 'sh', args: ['-c', 'echo "please log in" >&2; exit 1'] };
      expect(await refusalOf(kubeconfig({}, { exec: failing }))).to.equal(', context x: please log in');
    });
  });
});
