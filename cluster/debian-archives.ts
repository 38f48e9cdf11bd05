/** Where the packages of Debian come from. */
import { run } from '../control-plane/run.ts';

/** The archives that this machine's apt cannot know, such as on Ubuntu: those that Debian itself configures. */
const DEFAULTS = {
  debian: 'http://deb.debian.org/debian',
  'debian-security': 'http://deb.debian.org/debian-security',
} as const;
const VARIABLES = { debian: 'DEBIAN_MIRROR', 'debian-security': 'DEBIAN_SECURITY_MIRROR' } as const;

/** The URLs of the archives, without a slash at the end. */
export type DebianArchives = Readonly<Record<keyof typeof DEFAULTS, string>>;

/**
 * Returns the archives: what DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR contain, otherwise the ones that the machine's own
 * apt uses, whatever their release, otherwise Debian's defaults.
 */
export async function findDebianArchives(env: NodeJS.ProcessEnv): Promise<DebianArchives> {
  const { code, stdout } = await run(
    'apt-get',
    ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages'],
    { cwd: '/', env },
  );
  return selectDebianArchives(env, code === 0 ? stdout.split('\n') : []);
}

/** @param repositories the URLs that apt is configured with */
export function selectDebianArchives(
  env: NodeJS.ProcessEnv,
  repositories: readonly string[],
): DebianArchives {
  const urls = repositories.map(withoutSlash);
  const select = (name: keyof typeof DEFAULTS): string =>
    withoutSlash(env[VARIABLES[name]] || urls.find((url) => url.endsWith(`/${name}`)) || DEFAULTS[name]);
  return { debian: select('debian'), 'debian-security': select('debian-security') };
}

function withoutSlash(url: string): string {
  return url.trim().replace(/\/+$/, '');
}
