import { BlockList, isIP } from 'node:net';

/**
 * Returns the URL of the proxy that the environment sets for a server, by the rules of Go's net/http, which kubectl
 * follows: HTTPS_PROXY or HTTP_PROXY by the server's scheme, upper case first; never for localhost and loopback
 * addresses; not for the hosts in NO_PROXY, which may be names (also of parent domains), addresses, CIDRs, any of them
 * with a port, or `*`.
 *
 * @returns the proxy's URL, with `http:` if the variable contains no scheme; undefined for none
 */
export function proxyFromEnvironment(
  server: URL,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const prefix = server.protocol === 'https:' ? 'HTTPS' : 'HTTP';
  const proxy = variable(env, `${prefix}_PROXY`);
  if (proxy === undefined) return undefined;
  const host = server.hostname.replaceAll(/^\[|\]$/g, '').toLowerCase();
  const port = server.port === '' ? (prefix === 'HTTPS' ? '443' : '80') : server.port;
  if (host === 'localhost' || isLoopback(host)) return undefined;
  const exceptions = (variable(env, 'NO_PROXY') ?? '').split(',').map((entry) => entry.trim().toLowerCase());
  if (exceptions.some((entry) => matchesException(entry, host, port))) return undefined;
  // `proxy:3128` parses as a URL with the scheme `proxy:`.
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\/./i.test(proxy);
  const url = hasScheme ? proxy : `http://${proxy}`;
  // With SOCKS 5, the proxy resolves names in either case.
  return url.replace(/^socks5h:/i, 'socks5:');
}

function variable(env: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  return [env[name], env[name.toLowerCase()]].find((value) => value !== undefined && value !== '');
}

function isLoopback(host: string): boolean {
  return inSubnet(host, '127.0.0.0', 8) || inSubnet(host, '::1', 128);
}

function matchesException(entry: string, host: string, port: string): boolean {
  if (entry === '') return false;
  if (entry === '*') return true;
  const [, network = '', bits = ''] = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry) ?? [];
  if (network !== '') return inSubnet(host, network, Number(bits));
  const [, bracketed, plain, exceptionPort] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [
    undefined,
    undefined,
    entry,
  ];
  if (exceptionPort !== undefined && exceptionPort !== port) return false;
  const exception = bracketed ?? plain ?? '';
  if (isIP(exception) !== 0) return inSubnet(host, exception, isIP(exception) === 4 ? 32 : 128);
  const domain = exception.replace(/^\*?\./, '');
  // With a leading dot, the domain itself is not an exception.
  return (domain === exception && host === domain) || host.endsWith(`.${domain}`);
}

function inSubnet(host: string, network: string, bits: number): boolean {
  const [hostFamily, family] = [isIP(host), isIP(network)];
  if (hostFamily === 0 || family === 0 || bits > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, hostFamily === 4 ? 'ipv4' : 'ipv6');
}
