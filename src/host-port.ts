/** The parts of a `host:port` address. */
export interface HostPort {
  /** A name or an IP address; an IPv6 address has no brackets. */
  readonly host: string;
  /** 0 to 65535. */
  readonly port: number;
}

/** Parses `host:port`, with an IPv6 host in brackets; undefined for anything else. Does not resolve the host. */
export function parseHostPort(text: string): HostPort | undefined {
  const [, ipv6, name, digits] =
    /^(?:\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\]|([^:[\]\s/]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = ipv6 ?? name;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}
