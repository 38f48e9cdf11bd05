/**
 * The connection of `kubectl rt` next to that of a real kubectl: the same kubeconfigs and environments, against servers
 * and proxies that record what arrives. `kubectl create token` and `kubectl rt status` send requests without discovery.
 */
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { resolveBinaries } from '../../control-plane/resolve.ts';
import { runStatus } from '../../src/status/status.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import {
  startHttpProxy,
  startRecordedApi,
  startSocksProxy,
  type LoopbackServer,
  type RecordedProxy,
  type RecordedRequest,
} from '../support/recorded-api.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const b64 = (text: string): string => Buffer.from(text).toString('base64');

/** A client's outcome: what arrived, and what an exec plugin received. */
interface Outcome {
  readonly failed: boolean;
  readonly stderr: string;
  /** The first request; the others of a command are equal but for the resource. */
  readonly request: RecordedRequest | undefined;
  readonly proxied: readonly string[];
  /** KUBERNETES_EXEC_INFO of each run of the plugin. */
  readonly pluginInputs: readonly unknown[];
}

describe('kubectl rt next to kubectl', () => {
  const authority = createCertificateAuthority('cluster');
  const intermediate = authority.issueAuthority();
  const clientCertificate = createCertificateAuthority('clients').issue({ dnsNames: ['alice'] });
  const otherCertificate = createCertificateAuthority('clients').issue({ dnsNames: ['bob'] });
  const requests: RecordedRequest[] = [];
  let directory: string;
  let kubectl: string;
  let api: LoopbackServer;
  let other: LoopbackServer;
  let issued: LoopbackServer;
  let plain: LoopbackServer;
  let httpProxy: RecordedProxy;
  let httpsProxy: RecordedProxy;
  let plainProxy: RecordedProxy;
  let socksProxy: RecordedProxy;

  before('starts servers and proxies', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    kubectl = join((await resolveBinaries(['kubectl'])).folder, 'kubectl');
    api = await startRecordedApi('api', requests, authority);
    other = await startRecordedApi('other', requests, authority);
    issued = await startRecordedApi('issued', requests, intermediate);
    plain = await startRecordedApi('plain', requests);
    httpProxy = await startHttpProxy(api.port);
    httpsProxy = await startHttpProxy(api.port, authority);
    plainProxy = await startHttpProxy(plain.port);
    socksProxy = await startSocksProxy(api.port);
  });

  after(() => {
    for (const server of [api, other, issued, plain, httpProxy, httpsProxy, plainProxy, socksProxy])
      server.close();
  });

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kubectl-plugin-'));
    await write('ca.crt', authority.ca);
    await write('intermediate.crt', intermediate.ca);
    await write('u.crt', clientCertificate.cert);
    await write('u.key', clientCertificate.key);
    await write('other.crt', otherCertificate.cert);
    await write('other.key', otherCertificate.key);
    await write('token', 'from-file\n');
    await write(
      'plugin.sh',
      `printf '%s\\n' "$KUBERNETES_EXEC_INFO" >> "${directory}/inputs"
cat "${directory}/output"
`,
    );
    await write('output', credential({ token: 'from-plugin' }));
  });

  afterEach(() => rm(directory, { recursive: true }));

  async function write(name: string, content: string | object): Promise<string> {
    const path = join(directory, name);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
    return path;
  }

  function credential(status: object, apiVersion = 'v1'): string {
    return JSON.stringify({
      apiVersion: `client.authentication.k8s.io/${apiVersion}`,
      kind: 'ExecCredential',
      status,
    });
  }

  const url = ({ port }: LoopbackServer): string => `https://127.0.0.1:${port}`;

  /** Returns a kubeconfig with one context `x`. */
  function config(user: object = { token: 't' }, cluster: object = {}, context: object = {}): object {
    return {
      'current-context': 'x',
      clusters: [{ name: 'c', cluster: { server: url(api), 'certificate-authority': 'ca.crt', ...cluster } }],
      users: [{ name: 'u', user }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', ...context } }],
    };
  }

  const plugin = (fields: object = {}): object => ({
    exec: {
      apiVersion: 'client.authentication.k8s.io/v1',
      interactiveMode: 'Never',
      command: 'sh',
      args: [join(directory, 'plugin.sh')],
      ...fields,
    },
  });

  async function observe(run: () => Promise<{ failed: boolean; stderr: string }>): Promise<Outcome> {
    const proxies = { httpProxy, httpsProxy, plainProxy, socksProxy };
    const counts = Object.values(proxies).map(({ connections }) => connections.length);
    requests.length = 0;
    await rm(join(directory, 'inputs'), { force: true });
    const { failed, stderr } = await run();
    const proxied = Object.entries(proxies).flatMap(([name, { connections }], i) =>
      connections.slice(counts[i]).map((connection) => `${name}: ${connection}`),
    );
    const inputs = await readFile(join(directory, 'inputs'), 'utf8').catch(() => '');
    return {
      failed,
      stderr,
      request: requests[0],
      // One connection per concurrent request; kubectl sends one request.
      proxied: [...new Set(proxied.map((text) => text.replace(/(?:POST|GET) (http:\/\/[^/]+).*/, '$1')))],
      pluginInputs: inputs
        .trim()
        .split('\n')
        .filter((line) => line !== '')
        .slice(0, 1)
        .map((line) => JSON.parse(line) as unknown),
    };
  }

  function runKubectl(args: readonly string[], env: Record<string, string>): Promise<Outcome> {
    return observe(
      () =>
        new Promise((resolve) => {
          const child = execFile(
            kubectl,
            ['create', 'token', 'probe', ...args],
            { env, cwd: directory },
            (error, _stdout, stderr) => resolve({ failed: error !== null, stderr: stderr.trim() }),
          );
          child.stdin?.end();
        }),
    );
  }

  function runPlugin(args: readonly string[], env: Record<string, string>): Promise<Outcome> {
    return observe(async () => {
      let stderr = '';
      const terminal = {
        out: () => undefined,
        err: (text: string) => void (stderr += text),
        canRedraw: false,
        errColumns: () => undefined,
        interrupted: new AbortController().signal,
      };
      const code = await runStatus(args, terminal, env);
      return { failed: code !== 0, stderr: stderr.trim() };
    });
  }

  interface Case {
    readonly args?: readonly string[];
    readonly env?: Record<string, string>;
    /** Set if both clients reject the input; it describes the message of `kubectl rt`. */
    readonly rejected?: RegExp;
    /** Only for cases in which something else than the equality with kubectl is interesting. */
    readonly check?: (outcome: Outcome) => void;
  }

  /** Runs both clients. `prepare` returns the input; a kubeconfig that it does not name is `$HOME/.kube/config`. */
  function compare(title: string, prepare: () => Case | Promise<Case>): void {
    it(title, async function () {
      this.timeout(120_000);
      const { args = [], env: extra = {}, rejected, check } = await prepare();
      const env = { PATH: process.env['PATH'] ?? '', HOME: directory, ...extra };
      const expected = await runKubectl(args, env);
      const actual = await runPlugin(args, env);
      reportMeasurement(`kubectl: ${summary(expected)}\n          rt:      ${summary(actual)}`);
      expect(expected.failed, `kubectl: ${expected.stderr}`).to.equal(rejected !== undefined);
      expect(actual.failed, actual.stderr).to.equal(rejected !== undefined);
      if (rejected === undefined) {
        expect(actual.request).to.deep.equal(expected.request);
        expect(actual.request).not.to.equal(undefined);
      } else {
        expect(actual.request).to.equal(undefined);
        expect(actual.stderr).to.match(rejected);
        expect(actual.stderr.replace('\nstatus: see --help for all flags', '')).not.to.contain('\n');
      }
      expect(actual.proxied).to.deep.equal(expected.proxied);
      expect(actual.pluginInputs).to.deep.equal(expected.pluginInputs);
      check?.(actual);
    });
  }

  const atHome = async (content: object, rest: Case = {}): Promise<Case> => {
    await write('.kube/ca.crt', authority.ca);
    await write('.kube/config', content);
    return rest;
  };

  describe('finds the kubeconfig', () => {
    compare('in ~/.kube/config', () => atHome(config({ token: 'home' }, {}, { namespace: 'at-home' })));
    compare(
      'in the list of KUBECONFIG, whose first file wins and whose missing files are skipped',
      async () => {
        const one = await write('one', {
          contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', namespace: 'one' } }],
        });
        const two = await write('two', config({ token: 'two' }));
        const three = await write('three', { ...config({ token: 'three' }), 'current-context': 'other' });
        return { env: { KUBECONFIG: [`${directory}/none`, one, two, one, three].join(':') } };
      },
    );
    compare('given by --kubeconfig, before KUBECONFIG', async () => ({
      args: ['--kubeconfig', await write('given', config({ token: 'given' }))],
      env: { KUBECONFIG: await write('listed', config({ token: 'listed' })) },
    }));
    compare('in KUBECONFIG although it runs in a pod', async () => ({
      env: {
        KUBECONFIG: await write('listed', config()),
        KUBERNETES_SERVICE_HOST: '127.0.0.1',
        KUBERNETES_SERVICE_PORT: String(other.port),
      },
    }));
    compare('with KUBERNETES_MASTER where no file contains a server', () => ({
      env: { KUBERNETES_MASTER: `http://127.0.0.1:${plain.port}` },
    }));
    compare('and rejects a given file that is missing', () => ({
      args: ['--kubeconfig', '/none'],
      rejected: /^status: kubeconfig \/none: no such file$/,
    }));
    compare('and rejects invalid YAML', async () => ({
      args: ['--kubeconfig', await write('bad', 'a: b: c\n  - d')],
      rejected: /^status: kubeconfig .*\/bad: invalid YAML: .*line 1/,
    }));
    compare('and rejects a file that is a list', async () => ({
      args: ['--kubeconfig', await write('bad', '- a')],
      rejected: /bad: not a kubeconfig: top level is not a mapping$/,
    }));
    compare('and rejects a directory', () => ({ args: ['--kubeconfig', directory], rejected: /EISDIR/ }));
    compare('and rejects an environment without any configuration', () => ({
      rejected:
        /no API server configured: KUBECONFIG is not set and .*config does not exist, not in a pod; set --kubeconfig or --server$/,
    }));
  });

  describe('selects context, cluster, user and namespace', () => {
    const two = (): object => ({
      'current-context': 'x',
      clusters: [
        {
          name: 'c',
          cluster: {
            server: url(api),
            'certificate-authority': 'ca.crt',
            'tls-server-name': 'api.cluster.test',
          },
        },
        { name: 'd', cluster: { server: `${url(other)}/prefix/`, 'certificate-authority': 'ca.crt' } },
      ],
      users: [
        { name: 'u', user: { token: 'u' } },
        { name: 'v', user: { 'client-certificate': 'u.crt', 'client-key': 'u.key' } },
      ],
      contexts: [
        { name: 'x', context: { cluster: 'c', user: 'u', namespace: 'one' } },
        { name: 'y', context: { cluster: 'd', user: 'v' } },
      ],
    });
    const given = async (...args: string[]): Promise<Case> => ({
      args: ['--kubeconfig', await write('two', two()), ...args],
    });
    compare('of the current context', () => given());
    compare('of --context', () => given('--context', 'y'));
    compare('of an empty --context, which is ignored', () => given('--context', ''));
    compare('of --cluster and --user', () => given('--cluster', 'd', '--user', 'v'));
    compare('of -n', () => given('-n', 'two'));
    compare('of --server, which ignores the tls-server-name of the file', () =>
      given('--server', url(other)),
    );
    compare('of --server and --tls-server-name', () =>
      given('-s', url(other), '--tls-server-name', 'api.cluster.test'),
    );
    compare('of --token, which replaces the token of the file', () => given('--token', 'flag'));
    compare('of --token and a certificate of the file', () => given('--context', 'y', '--token', 'flag'));
    compare('of --client-certificate and --client-key', () =>
      given(
        '--context',
        'y',
        '--client-certificate',
        join(directory, 'other.crt'),
        '--client-key',
        join(directory, 'other.key'),
      ),
    );
    compare('of --certificate-authority, relative to the working directory of kubectl', () =>
      given('--certificate-authority', join(directory, 'ca.crt')),
    );
    compare('of --username and --password', () =>
      given('--context', 'y', '--username', 'a', '--password', 'b:c'),
    );
    compare('without any kubeconfig', () => ({
      args: ['--server', url(api), '--token', 't', '--certificate-authority', join(directory, 'ca.crt')],
    }));
    compare('of an http server, to which no credentials are sent', () =>
      given('--server', `http://127.0.0.1:${plain.port}`, '--as', 'alice'),
    );
    compare('of a server without a scheme, which is http', () =>
      given('--server', `127.0.0.1:${plain.port}`),
    );
    compare('and rejects a missing --context', () =>
      given('--context', 'z').then((input) => ({ ...input, rejected: /two: context z not found$/ })),
    );
    compare('and rejects a missing --cluster', () =>
      given('--cluster', 'z').then((input) => ({ ...input, rejected: /two: cluster z not found$/ })),
    );
    compare('and rejects a missing --user', () =>
      given('--user', 'z').then((input) => ({ ...input, rejected: /two: user z not found$/ })),
    );
    compare('and rejects a current context that is missing', async () => ({
      args: ['--kubeconfig', await write('k', { ...two(), 'current-context': 'z' })],
      rejected: /k: context z not found$/,
    }));
    compare('and rejects a file without a current context', async () => ({
      args: ['--kubeconfig', await write('k', { ...two(), 'current-context': '' })],
      rejected: /k: current-context is not set; set it with kubectl config use-context NAME$/,
    }));
    compare('and rejects a context without a cluster', async () => ({
      args: [
        '--kubeconfig',
        await write('k', { ...two(), contexts: [{ name: 'x', context: { user: 'u' } }] }),
      ],
      rejected: /k: context x has no cluster$/,
    }));
    compare('and rejects a context whose cluster is missing', async () => ({
      args: ['--kubeconfig', await write('k', { ...two(), clusters: [] })],
      rejected: /k: context x refers to cluster c, which does not exist$/,
    }));
    compare('and rejects a context whose user is missing, without a terminal to ask on', async () => ({
      args: ['--kubeconfig', await write('k', { ...two(), users: [] })],
      rejected: /refers to user u, which does not exist, and standard input is not a terminal/,
    }));
    compare('and rejects an empty context', async () => ({
      args: ['--kubeconfig', await write('k', { ...two(), contexts: [{ name: 'x', context: null }] })],
      rejected: /k: context x has no cluster$/,
    }));
    compare('and rejects a name that occurs twice', async () => ({
      args: [
        '--kubeconfig',
        await write('k', {
          ...config(),
          users: [
            { name: 'u', user: {} },
            { name: 'u', user: { token: 't' } },
          ],
        }),
      ],
      rejected: /k: user u occurs twice$/,
    }));
    compare('and rejects an invalid --request-timeout', () =>
      given('--request-timeout', 'soon').then((input) => ({
        ...input,
        rejected: /^status: --request-timeout: "soon" must be/,
      })),
    );
  });

  describe('identifies the user', () => {
    const as =
      (user: object, cluster: object = {}, rest: Case = {}) =>
      async (): Promise<Case> => ({
        args: ['--kubeconfig', await write('k', config(user, cluster))],
        ...rest,
      });
    compare('by a token file', as({ tokenFile: 'token' }));
    compare('by a token file before a token', as({ token: 't', tokenFile: 'token' }));
    compare('by a token where the token file is missing', as({ token: 't', tokenFile: 'gone' }));
    compare('by a user name and a password', as({ username: 'a', password: 'ä' }));
    compare('by certificate data', () =>
      as({
        'client-certificate-data': b64(clientCertificate.cert),
        'client-key-data': b64(clientCertificate.key),
      })(),
    );
    compare(
      'by impersonation of everything',
      as({
        token: 't',
        as: 'alice',
        'as-uid': '7',
        'as-groups': ['b', 'a'],
        'as-user-extra': { 'example.com/Scope': ['x', 'y'], reason: ['z'] },
      }),
    );
    compare('by impersonation flags, which replace those of the file', async () => ({
      args: [
        ...[
          '--kubeconfig',
          await write('k', config({ token: 't', as: 'alice', 'as-groups': ['a'], 'as-uid': '7' })),
        ],
        ...['--as', 'bob', '--as-group', 'g', '--as-group', 'h', '--as-user-extra', 'k=v=w'],
      ],
    }));
    compare(
      'and rejects groups without a user',
      as(
        { token: 't', 'as-groups': ['a'] },
        {},
        { rejected: /user u: as-uid, as-groups and as-user-extra require as$/ },
      ),
    );
    compare(
      'and rejects a token next to a password',
      as(
        { token: 't', username: 'a' },
        {},
        { rejected: /user u: token and username or password exclude each other$/ },
      ),
    );
    compare(
      'and rejects a certificate without a key',
      as(
        { 'client-certificate': 'u.crt' },
        {},
        { rejected: /user u: client-certificate requires client-key or client-key-data$/ },
      ),
    );
    compare(
      'and rejects a certificate that is missing',
      as({ 'client-certificate': 'gone', 'client-key': 'u.key' }, {}, { rejected: /ENOENT: .*\/gone/ }),
    );
    compare(
      'and rejects a token that YAML takes for a number',
      as({ token: 12345 }, {}, { rejected: /user u: token must be a string, not a number \(quote it\)$/ }),
    );
    compare(
      'and rejects data that is not base64',
      as(
        { token: 't' },
        { 'certificate-authority': '', 'certificate-authority-data': '%%%' },
        { rejected: /certificate-authority-data is not base64$/ },
      ),
    );
    for (const name of ['gcp', 'azure', 'openstack']) {
      compare(
        `and rejects the auth provider ${name}`,
        as(
          { 'auth-provider': { name } },
          {},
          { rejected: new RegExp(`user u: auth-provider ${name} is not supported: `) },
        ),
      );
    }
    compare(
      'and rejects a user without credentials, without a terminal to ask on',
      as({}, {}, { rejected: /user has no credentials, and standard input is not a terminal/ }),
    );
  });

  describe('verifies the server', () => {
    const at =
      (cluster: object, rest: Case = {}) =>
      async (): Promise<Case> => ({
        args: ['--kubeconfig', await write('k', config({ token: 't' }, cluster))],
        ...rest,
      });
    compare('by an intermediate CA', () =>
      at({ server: url(issued), 'certificate-authority': 'intermediate.crt' })(),
    );
    compare('by tls-server-name', at({ 'tls-server-name': 'api.cluster.test' }));
    compare(
      'not at all with insecure-skip-tls-verify',
      at({ 'certificate-authority': '', 'insecure-skip-tls-verify': true }),
    );
    compare('not at all with --insecure-skip-tls-verify, which replaces the CA of the file', async () => ({
      args: [
        '--kubeconfig',
        await write('k', config({ token: 't' }, { 'certificate-authority': 'intermediate.crt' })),
        '--insecure-skip-tls-verify',
      ],
    }));
    compare(
      'and rejects a name that is not in the certificate',
      at({ 'tls-server-name': 'wrong.test' }, { rejected: /TLS: .*wrong\.test/ }),
    );
    compare('and rejects another CA', at({ 'certificate-authority': 'other.crt' }, { rejected: /TLS: / }));
    compare(
      'and rejects a CA next to insecure-skip-tls-verify',
      at(
        { 'insecure-skip-tls-verify': true },
        { rejected: /cluster c: a certificate authority and insecure-skip-tls-verify exclude each other$/ },
      ),
    );
    compare(
      'and rejects a CA file without a certificate',
      at({ 'certificate-authority': 'token' }, { rejected: /contains no certificate$/ }),
    );
    compare(
      'and rejects a CA file next to CA data',
      at(
        { 'certificate-authority-data': b64(authority.ca) },
        { rejected: /certificate-authority and certificate-authority-data exclude each other$/ },
      ),
    );
  });

  describe('uses a proxy', () => {
    const behind = { server: 'https://api.cluster.test', 'certificate-authority': 'ca.crt' };
    const through =
      (cluster: object, env: () => Record<string, string>, rest: Case = {}) =>
      async (): Promise<Case> => ({
        args: ['--kubeconfig', await write('k', config({ token: 't' }, cluster))],
        env: env(),
        ...rest,
      });
    const none = (): Record<string, string> => ({});
    compare('of the kubeconfig, also for a loopback address', () =>
      through({ 'proxy-url': `http://127.0.0.1:${httpProxy.port}` }, none)(),
    );
    compare('of the kubeconfig, with https and a password', () =>
      through({ ...behind, 'proxy-url': `https://me:p%40w@127.0.0.1:${httpsProxy.port}` }, none)(),
    );
    compare('of the kubeconfig, with SOCKS 5, which resolves the name', () =>
      through({ ...behind, 'proxy-url': `socks5://127.0.0.1:${socksProxy.port}` }, none)(),
    );
    compare(
      'of HTTPS_PROXY, for a name that only the proxy can resolve',
      through(behind, () => ({ HTTPS_PROXY: `http://127.0.0.1:${httpProxy.port}` })),
    );
    compare(
      'of https_proxy without a scheme',
      through(behind, () => ({ https_proxy: `127.0.0.1:${httpProxy.port}` })),
    );
    compare('of the kubeconfig before the environment', () =>
      through({ ...behind, 'proxy-url': `socks5://127.0.0.1:${socksProxy.port}` }, () => ({
        HTTPS_PROXY: `http://127.0.0.1:${httpProxy.port}`,
      }))(),
    );
    compare('of --proxy-url', async () => ({
      args: [
        '--kubeconfig',
        await write('k', config({ token: 't' }, behind)),
        '--proxy-url',
        `http://127.0.0.1:${httpProxy.port}`,
      ],
    }));
    compare(
      'of HTTP_PROXY for an http server',
      through({ server: 'http://api.cluster.test', 'certificate-authority': '' }, () => ({
        HTTP_PROXY: `http://127.0.0.1:${plainProxy.port}`,
      })),
    );
    compare(
      'not of HTTPS_PROXY for a loopback address',
      through({}, () => ({ HTTPS_PROXY: `http://127.0.0.1:${httpProxy.port}` })),
    );
    compare(
      'not for a domain in NO_PROXY',
      through(
        behind,
        () => ({ HTTPS_PROXY: `http://127.0.0.1:${httpProxy.port}`, NO_PROXY: 'a.test, .cluster.test' }),
        { rejected: /api\.cluster\.test/ },
      ),
    );
    compare(
      'and rejects an unknown scheme',
      through({ 'proxy-url': 'ftp://me:secret@p' }, none, {
        rejected: /cluster c: proxy-url ftp:\/\/p must be http, https or socks5$/,
      }),
    );
  });

  describe('runs an exec plugin', () => {
    const run = async (exec: object = {}, cluster: object = {}, rest: Case = {}): Promise<Case> => ({
      args: ['--kubeconfig', await write('k', config(plugin(exec), cluster))],
      ...rest,
    });
    compare('with the minimum input', () => run());
    compare('with everything about the cluster', () =>
      run(
        { provideClusterInfo: true },
        {
          'tls-server-name': 'api.cluster.test',
          'proxy-url': `http://127.0.0.1:${httpProxy.port}`,
          'disable-compression': true,
          extensions: [
            { name: 'other', extension: { a: 1 } },
            { name: 'client.authentication.k8s.io/exec', extension: { audience: 'x', list: [1, true] } },
          ],
        },
      ),
    );
    compare('with CA data and a path in the URL', () =>
      run(
        { provideClusterInfo: true },
        {
          server: `${url(api)}/a/b/?q=1`,
          'certificate-authority': '',
          'certificate-authority-data': b64(authority.ca),
        },
      ),
    );
    compare('without verification of the server', () =>
      run({ provideClusterInfo: true }, { 'certificate-authority': '', 'insecure-skip-tls-verify': true }),
    );
    compare('of version v1beta1, whose interactiveMode is optional', async () => {
      await write('output', credential({ token: 'beta' }, 'v1beta1'));
      return run({ apiVersion: 'client.authentication.k8s.io/v1beta1', interactiveMode: undefined });
    });
    compare('with interactiveMode IfAvailable without a terminal', () =>
      run({ interactiveMode: 'IfAvailable' }),
    );
    compare('with its own environment and a path relative to the kubeconfig', async () => {
      const script = await write(
        'bin/p',
        `#!/bin/sh\necho '${credential({ token: 'TOKEN' })}' | sed "s/TOKEN/$TOKEN/"\n`,
      );
      await chmod(script, 0o700);
      return run({ command: './bin/p', env: [{ name: 'TOKEN', value: 'from-env' }] });
    });
    compare('that prints a certificate', async () => {
      await write(
        'output',
        credential({ clientCertificateData: clientCertificate.cert, clientKeyData: clientCertificate.key }),
      );
      return run();
    });
    compare('not where --token is given', async () => {
      const { args = [] } = await run();
      return { args: [...args, '--token', 'flag'] };
    });
    const rejections: readonly (readonly [string, object, string | undefined, RegExp])[] = [
      [
        'that fails',
        { args: ['-c', 'echo trouble >&2; exit 3'] },
        undefined,
        /exec plugin sh failed with exit code 3/,
      ],
      [
        'that does not exist',
        { command: 'no-such-plugin', installHint: 'get it' },
        undefined,
        /exec plugin no-such-plugin: executable not found; get it$/,
      ],
      ['that prints something else', {}, 'secret', /exec plugin sh printed invalid JSON$/],
      ['that prints nothing', {}, '', /exec plugin sh printed nothing$/],
      [
        'that prints another version',
        {},
        'v1beta1',
        /exec plugin sh printed apiVersion "client.authentication.k8s.io\/v1beta1", but/,
      ],
      ['that prints no credentials', {}, '{}', /exec plugin sh printed neither a token nor a certificate$/],
      [
        'that prints a certificate without a key',
        {},
        '{"clientCertificateData":"x"}',
        /printed a certificate without its key$/,
      ],
      [
        'of an unknown version',
        { apiVersion: 'client.authentication.k8s.io/v1alpha1' },
        undefined,
        /exec.apiVersion "client.authentication.k8s.io\/v1alpha1" is not supported; it must be/,
      ],
      ['without a version', { apiVersion: '' }, undefined, /exec.apiVersion is required/],
      [
        'without interactiveMode',
        { interactiveMode: undefined },
        undefined,
        /exec.interactiveMode is required/,
      ],
      [
        'with an unknown interactiveMode',
        { interactiveMode: 'Maybe' },
        undefined,
        /exec.interactiveMode "Maybe" must be/,
      ],
      [
        'that requires a terminal',
        { interactiveMode: 'Always' },
        undefined,
        /requires a terminal \(interactiveMode Always\), and standard input is not one$/,
      ],
      ['without a command', { command: '' }, undefined, /exec.command is required$/],
    ];
    for (const [title, exec, output, rejected] of rejections) {
      compare(`and rejects one ${title}`, async () => {
        if (output !== undefined) {
          const isStatus = output.startsWith('{');
          await write(
            'output',
            isStatus
              ? credential(JSON.parse(output) as object)
              : output === 'v1beta1'
                ? credential({ token: 't' }, output)
                : output,
          );
        }
        return run(exec, {}, { rejected });
      });
    }
  });

  describe('as a process', () => {
    /** Runs a program on a terminal of its own, into which the lines are typed; returns its screen. */
    function onTerminal(
      command: readonly string[],
      env: Record<string, string>,
      typed: readonly string[],
    ): Promise<Outcome> {
      return observe(
        () =>
          new Promise((resolve) => {
            const quoted = command.map((part) => `'${part}'`).join(' ');
            // With a pseudo-terminal, the screen is the only output.
            const child = execFile(
              'script',
              ['-qec', quoted, '/dev/null'],
              { env, cwd: ROOT },
              (error, stdout) => resolve({ failed: error !== null, stderr: stdout.trim() }),
            );
            let screen = '';
            const remaining = [...typed];
            child.stdout?.on('data', (text: string) => {
              screen += text;
              if (!/: $|then press enter\s*$/.test(screen)) return;
              screen = '';
              child.stdin?.write(`${remaining.shift() ?? ''}\r`);
            });
          }),
      );
    }

    const rt = (...args: string[]): string[] => [process.execPath, 'src/kubectl-rt.ts', 'status', ...args];
    const create = (...args: string[]): string[] => [kubectl, 'create', 'token', 'probe', ...args];
    const env = (extra: Record<string, string> = {}): Record<string, string> => ({
      PATH: process.env['PATH'] ?? '',
      HOME: directory,
      TERM: 'xterm',
      ...extra,
    });

    it('asks for a user name and a password on the terminal, without an echo of the password', async function () {
      this.timeout(120_000);
      const args = ['--kubeconfig', await write('k', config({}))];
      const expected = await onTerminal(create(...args), env(), ['alice', 'geheim']);
      const actual = await onTerminal(rt(...args), env(), ['alice', 'geheim']);
      expect(expected.request?.authorization).to.equal(`Basic ${b64('alice:geheim')}`);
      expect(actual.request).to.deep.equal(expected.request);
      expect(actual.stderr).to.match(/Please enter Username: alice\s+Please enter Password: /);
      expect(actual.stderr).not.to.contain('geheim');
    });

    it('lets an exec plugin print a code and wait for input on the terminal', async function () {
      this.timeout(120_000);
      await write(
        'plugin.sh',
        `printf '%s\n' "$KUBERNETES_EXEC_INFO" >> "${directory}/inputs"
echo "enter code 1234, then press enter" >&2
read answer
echo '${credential({ token: 'TOKEN' })}' | sed "s/TOKEN/$answer/"
`,
      );
      const args = ['--kubeconfig', await write('k', config(plugin({ interactiveMode: 'Always' })))];
      const expected = await onTerminal(create(...args), env(), ['typed']);
      const actual = await onTerminal(rt(...args), env(), ['typed']);
      expect(expected.request?.authorization).to.equal('Bearer typed');
      expect(actual.request).to.deep.equal(expected.request);
      expect(actual.pluginInputs).to.deep.equal(expected.pluginInputs);
      expect(JSON.stringify(actual.pluginInputs)).to.contain('"interactive":true');
      expect(actual.stderr).to.contain('enter code 1234, then press enter');
    });

    it('trusts the CAs of the system where no CA is given', async function () {
      this.timeout(120_000);
      const args = [
        '--kubeconfig',
        await write('k', config({ token: 't' }, { 'certificate-authority': '' })),
      ];
      const trusting = env({ SSL_CERT_FILE: join(directory, 'ca.crt') });
      const expected = await onTerminal(create(...args), trusting, []);
      const actual = await onTerminal(rt(...args), trusting, []);
      expect(expected.request, expected.stderr).to.include({ server: 'api', authorization: 'Bearer t' });
      expect(actual.request, actual.stderr).to.deep.equal(expected.request);
      const distrusting = await onTerminal(rt(...args), env(), []);
      expect(distrusting.request).to.equal(undefined);
      expect(distrusting.stderr).to.contain('TLS: ');
    });

    it('writes one line and no stack trace for a SOCKS proxy and for a plugin that fails', async function () {
      this.timeout(120_000);
      const failing = plugin({ args: ['-c', 'echo "login expired" >&2; exit 1'] });
      const screen = await onTerminal(rt('--kubeconfig', await write('k', config(failing))), env(), []);
      expect(screen.stderr.split(/\r?\n/)).to.deep.equal([
        'login expired',
        `status: kubeconfig ${directory}/k, context x: exec plugin sh failed with exit code 1`,
      ]);
      const behind = {
        server: 'https://api.cluster.test',
        'proxy-url': `socks5://127.0.0.1:${socksProxy.port}`,
      };
      const socks = await onTerminal(
        rt('--kubeconfig', await write('s', config({ token: 't' }, behind))),
        env(),
        [],
      );
      expect(socks.request?.serverName).to.equal('api.cluster.test');
      expect(socks.stderr).not.to.contain('Warning');
    });
  });

  /** One line about an outcome, for the report of the test. */
  function summary({ failed, stderr, request, proxied, pluginInputs }: Outcome): string {
    if (failed) return `rejected: ${stderr.replaceAll(/\s+/g, ' ').replaceAll(directory, '').slice(0, 150)}`;
    if (request === undefined) return 'no request';
    const { server, namespace, authorization, certificate, impersonation } = request;
    const account = [
      authorization,
      certificate === '' ? '' : `certificate ${certificate.slice(0, 8)}`,
      ...impersonation,
    ];
    const via = proxied.length === 0 ? '' : ` via ${proxied.join(', ').replaceAll(/:\d{5}/g, '')}`;
    const input =
      pluginInputs.length === 0 ? '' : `, plugin input of ${JSON.stringify(pluginInputs[0]).length} bytes`;
    return `${server}/${namespace} as ${account.filter((part) => part !== '').join(', ') || 'anonymous'}${via}${input}`;
  }
});
