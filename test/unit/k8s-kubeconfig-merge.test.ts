import { expect } from 'chai';
import { stringify } from 'yaml';
import { KubeconfigError, selectContext, type KubeconfigFile } from '../../src/k8s/kubeconfig-merge.ts';

function file(path: string, content: object): KubeconfigFile {
  return { path, text: stringify(content) };
}

const CLUSTER = {
  name: 'c',
  cluster: { server: 'https://c.example:6443', 'certificate-authority': 'ca.crt' },
};
const USER = {
  name: 'u',
  user: { 'client-certificate': '/abs/u.crt', 'client-key': 'keys/u.key', tokenFile: 't' },
};
const CONTEXT = { name: 'x', context: { cluster: 'c', user: 'u', namespace: 'tunnels' } };

function errorOf(...files: KubeconfigFile[]): string {
  try {
    const { source, noServer, noUser } = selectContext(files);
    const reason = noServer ?? noUser;
    if (reason !== undefined) return `${source}: ${reason}`;
  } catch (error) {
    expect(error).to.be.instanceOf(KubeconfigError);
    return (error as Error).message;
  }
  throw new Error('the kubeconfig was accepted');
}

describe('kubeconfig files', () => {
  it('resolve the current context to its cluster and user, with paths relative to the file', () => {
    const { name, namespace, cluster, user } = selectContext([
      file('/home/a/config', {
        'current-context': 'x',
        clusters: [CLUSTER],
        users: [USER],
        contexts: [CONTEXT],
      }),
    ]);
    expect({ name, namespace }).to.deep.equal({ name: 'x', namespace: 'tunnels' });
    expect(cluster).to.deep.equal({
      server: 'https://c.example:6443',
      'certificate-authority': '/home/a/ca.crt',
    });
    expect(user).to.deep.equal({
      'client-certificate': '/abs/u.crt',
      'client-key': '/home/a/keys/u.key',
      tokenFile: '/home/a/t',
    });
  });

  it('are merged as in kubectl: the first file that sets a value wins', () => {
    const { name, cluster, user } = selectContext([
      file('/one/config', { contexts: [CONTEXT], clusters: null }),
      file('/two/config', {
        'current-context': 'x',
        clusters: [CLUSTER],
        users: [{ name: 'u', user: { token: 'second' } }],
      }),
      file('/three/config', {
        'current-context': 'other',
        clusters: [{ name: 'c', cluster: { server: 'https://late.example' } }],
        users: [USER],
        contexts: [{ name: 'x', context: { cluster: 'other' } }],
      }),
    ]);
    expect(name).to.equal('x');
    expect(cluster).to.include({ server: 'https://c.example:6443', 'certificate-authority': '/two/ca.crt' });
    expect(user).to.deep.equal({ token: 'second' });
  });

  it('may omit the user and contain invalid entries that are not used', () => {
    const { user, namespace } = selectContext([
      file('/config', {
        'current-context': 'x',
        clusters: ['?', { name: 'broken', cluster: 7 }, CLUSTER],
        contexts: [{ name: 'x', context: { cluster: 'c', namespace: '' } }],
      }),
    ]);
    expect(user).to.deep.equal({});
    expect(namespace).to.equal(undefined);
  });

  it("resolve a plugin's path relative to the file and leave a bare command to PATH", () => {
    for (const [command, expected] of [
      ['./bin/plugin', '/home/a/bin/plugin'],
      ['/usr/bin/plugin', '/usr/bin/plugin'],
      ['aws', 'aws'],
    ]) {
      const { user } = selectContext([
        file('/home/a/config', {
          'current-context': 'x',
          clusters: [CLUSTER],
          contexts: [CONTEXT],
          users: [{ name: 'u', user: { exec: { command, args: ['token'] } } }],
        }),
      ]);
      expect(user['exec']).to.deep.equal({ command: expected, args: ['token'] });
    }
  });

  it('report errors in one line with the file name', () => {
    const base = { 'current-context': 'x', clusters: [CLUSTER], users: [USER], contexts: [CONTEXT] };
    expect(errorOf({ path: '/k', text: 'a: b: c\n  - d' })).to.match(
      /^kubeconfig \/k: invalid YAML: .*line 1[^\n]*$/,
    );
    expect(errorOf({ path: '/k', text: 'hello' })).to.equal(
      'kubeconfig /k: not a kubeconfig: top level is not a mapping',
    );
    expect(errorOf({ path: '/k', text: '' })).to.contain('kubeconfig /k: current-context is not set');
    expect(errorOf(file('/k', { ...base, 'current-context': '' }), { path: '/l', text: '' })).to.contain(
      'kubeconfig /k, /l: current-context is not set',
    );
    expect(errorOf(file('/k', { ...base, contexts: [] }))).to.equal('kubeconfig /k: context x not found');
    expect(errorOf(file('/k', { ...base, clusters: [] }))).to.equal(
      'kubeconfig /k: context x refers to cluster c, which does not exist',
    );
    expect(errorOf(file('/k', { ...base, users: [] }))).to.equal(
      'kubeconfig /k: context x refers to user u, which does not exist',
    );
    expect(errorOf(file('/k', { ...base, contexts: [{ name: 'x', context: { user: 'u' } }] }))).to.equal(
      'kubeconfig /k: context x has no cluster',
    );
    expect(errorOf(file('/k', { ...base, clusters: [{ name: 'c', cluster: 'https://c' }] }))).to.equal(
      'kubeconfig /k: cluster c is not a mapping',
    );
  });
});
