import { expect } from 'chai';
import { selectDebianArchives } from '../../cluster/debian-archives.ts';

const DEFAULT = {
  debian: 'http://deb.debian.org/debian',
  'debian-security': 'http://deb.debian.org/debian-security',
};
const MIRROR = {
  debian: 'https://mirror.test/debian',
  'debian-security': 'https://mirror.test/debian-security',
};

describe('the archives of Debian', () => {
  const table: readonly [
    source: string,
    env: NodeJS.ProcessEnv,
    repositories: readonly string[],
    expected: typeof DEFAULT,
  ][] = [
    ['the defaults without any configuration', {}, [], DEFAULT],
    [
      'the defaults on Ubuntu',
      {},
      ['http://archive.ubuntu.com/ubuntu/', 'http://security.ubuntu.com/ubuntu/', ''],
      DEFAULT,
    ],
    [
      "those of the machine's apt",
      {},
      [
        'https://other.test/apt/',
        'https://mirror.test/debian/',
        'https://mirror.test/debian/',
        'https://mirror.test/debian-security/',
      ],
      MIRROR,
    ],
    [
      'those of the environment before those of apt',
      { DEBIAN_MIRROR: 'https://mirror.test/debian/', DEBIAN_SECURITY_MIRROR: MIRROR['debian-security'] },
      ['http://apt.test/debian/', 'http://apt.test/debian-security/'],
      MIRROR,
    ],
    [
      'one of the environment and the default of the other',
      { DEBIAN_MIRROR: MIRROR.debian, DEBIAN_SECURITY_MIRROR: '' },
      [],
      { ...DEFAULT, debian: MIRROR.debian },
    ],
  ];
  for (const [source, env, repositories, expected] of table) {
    it(`are ${source}`, () => {
      expect(selectDebianArchives(env, repositories)).to.deep.equal(expected);
    });
  }
});
