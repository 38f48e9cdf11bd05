/** Where a service listens. `host` is a name or an IP address, IPv6 without brackets. */
export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Reads `host:port`, an IPv6 host in brackets; or says what is wrong with it. */
export function parseAddress(text: string): Address | { readonly error: string } {
  const [, bracketed, plain, digits] = /^(?:\[([^[\]]+)\]|([^:[\]/\s]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined || !(port >= 1 && port <= 65_535)) {
    return {
      error: `"${text}" is not host:port with a port from 1 to 65535, such as 127.0.0.1:18000 or [::1]:18000`,
    };
  }
  return { host, port };
}
