/** What a process uses, as the kernel counts it. Linux only, like the whole benchmark: it reads /proc. */
import { readFileSync } from 'node:fs';

/** USER_HZ, 100 on every Linux that Node runs on: so CPU times are whole steps of 10 ms. */
const MS_PER_TICK = 10;

/** CPU time of all threads since the start, user and system, ms. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is the command in parentheses, which may hold blanks; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** Resident memory now and at its highest since the start, MiB. */
export function memoryMiB(pid: number): { readonly resident: number; readonly peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mib = (field: string): number => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1];
    if (kib === undefined) throw new Error(`/proc/${pid}/status has no ${field}`);
    return Number(kib) / 1024;
  };
  return { resident: mib('VmRSS'), peak: mib('VmHWM') };
}

/**
 * The clients' ports of all TCP connections over IPv4 to a port of this machine, those that were closed within the last
 * minute included: a connection of which the kernel still knows (TIME_WAIT) was opened.
 */
export function clientPortsOf(serverPort: number): Set<number> {
  const ports = new Set<number>();
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local = '', remote = ''] = line.trim().split(/\s+/);
    // Either end may be the one that waits.
    if (portOf(remote) === serverPort) ports.add(portOf(local));
    else if (portOf(local) === serverPort && portOf(remote) !== 0) ports.add(portOf(remote));
  }
  return ports;
}

function portOf(address: string): number {
  return Number.parseInt(address.slice(address.indexOf(':') + 1), 16);
}
