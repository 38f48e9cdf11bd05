/** A `host:port` taken apart. */
export interface HostPort {
  /** A name or an address; an IPv6 one without its brackets. */
  readonly host: string;
  /** 0 to 65535. */
  readonly port: number;
}

/** Reads `host:port`, an IPv6 host in brackets; undefined for anything else. That the host exists is not looked at. */
export function parseHostPort(text: string): HostPort | undefined {
  const [, inBrackets, name, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = inBrackets ?? name;
  const port = Number(digits);
  return host === undefined || port > 65_535 ? undefined : { host, port };
}
