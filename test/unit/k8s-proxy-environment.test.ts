import { expect } from 'chai';
import { proxyFromEnvironment } from '../../src/k8s/proxy-environment.ts';

const PROXY = 'http://proxy:3128';

describe('proxies of the environment', () => {
  const table: readonly (readonly [string, string, Record<string, string>, string | undefined])[] = [
    ['is none without variables', 'https://a.test', {}, undefined],
    ['is none for empty variables', 'https://a.test', { HTTPS_PROXY: '' }, undefined],
    ['is HTTPS_PROXY for https', 'https://a.test', { HTTPS_PROXY: PROXY, HTTP_PROXY: 'http://x' }, PROXY],
    ['is HTTP_PROXY for http', 'http://a.test', { HTTP_PROXY: PROXY, HTTPS_PROXY: 'http://x' }, PROXY],
    ['may be lower case', 'https://a.test', { https_proxy: PROXY }, PROXY],
    [
      'is the upper-case one of both',
      'https://a.test',
      { https_proxy: 'http://x', HTTPS_PROXY: PROXY },
      PROXY,
    ],
    ['is never ALL_PROXY', 'https://a.test', { ALL_PROXY: PROXY, all_proxy: PROXY }, undefined],
    ['is an http proxy without a scheme', 'https://a.test', { HTTPS_PROXY: 'proxy:3128' }, PROXY],
    ['may be SOCKS 5', 'https://a.test', { HTTPS_PROXY: 'socks5://p:1' }, 'socks5://p:1'],
    ['may be SOCKS 5 with names', 'https://a.test', { HTTPS_PROXY: 'socks5h://p:1' }, 'socks5://p:1'],
    ['is not used for localhost', 'https://localhost:6443', { HTTPS_PROXY: PROXY }, undefined],
    ['is not used for 127.0.0.1', 'https://127.0.0.1:6443', { HTTPS_PROXY: PROXY }, undefined],
    ['is not used for 127.8.8.8', 'https://127.8.8.8:6443', { HTTPS_PROXY: PROXY }, undefined],
    ['is not used for ::1', 'https://[::1]:6443', { HTTPS_PROXY: PROXY }, undefined],
    ['is used for localhost.test', 'https://localhost.test', { HTTPS_PROXY: PROXY }, PROXY],
  ];
  for (const [title, server, env, expected] of table) {
    it(title, () => {
      expect(proxyFromEnvironment(new URL(server), env)).to.equal(expected);
    });
  }

  const exceptions: readonly (readonly [string, string, boolean])[] = [
    ['*', 'https://a.test', true],
    ['a.test', 'https://a.test', true],
    ['a.test', 'https://b.a.test', true],
    ['a.test', 'https://ba.test', false],
    ['.a.test', 'https://b.a.test', true],
    ['.a.test', 'https://a.test', false],
    ['*.a.test', 'https://b.a.test', true],
    ['*.a.test', 'https://a.test', false],
    ['A.TEST', 'https://a.test', true],
    ['x, a.test ,y', 'https://a.test', true],
    ['a.test:443', 'https://a.test', true],
    ['a.test:443', 'https://a.test:6443', false],
    ['.a.test:6443', 'https://b.a.test:6443', true],
    ['10.1.2.3', 'https://10.1.2.3:6443', true],
    ['10.1.2.3:6443', 'https://10.1.2.3:6443', true],
    ['10.1.2.3:1', 'https://10.1.2.3:6443', false],
    ['10.1.2.30', 'https://10.1.2.3:6443', false],
    ['10.0.0.0/8', 'https://10.1.2.3:6443', true],
    ['10.0.0.0/8', 'https://11.1.2.3:6443', false],
    ['10.0.0.0/8', 'https://a.test', false],
    ['10.0.0.0/99', 'https://10.1.2.3', false],
    ['fd00::/8', 'https://[fd00::1]:6443', true],
    ['[fd00::1]:6443', 'https://[fd00::1]:6443', true],
    ['fd00::1', 'https://[fd00::1]:6443', true],
    [',,:', 'https://a.test', false],
  ];
  for (const [list, server, isException] of exceptions) {
    it(`NO_PROXY=${list} ${isException ? 'excludes' : 'does not exclude'} ${server}`, () => {
      for (const name of ['NO_PROXY', 'no_proxy']) {
        const proxy = proxyFromEnvironment(new URL(server), { HTTPS_PROXY: PROXY, [name]: list });
        expect(proxy).to.equal(isException ? undefined : PROXY);
      }
    });
  }
});
