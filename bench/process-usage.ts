/** CPU time, memory and connections of a process, read from /proc. Linux only. */
import { readFileSync } from 'node:fs';

/** USER_HZ is 100 on every Linux that Node supports, so CPU times have a resolution of 10 ms. */
const MS_PER_TICK = 10;

/** Returns the CPU time (user and system) of all threads since the start of the process, in ms. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is the command in parentheses, which may contain blanks; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
}

/** Returns the current resident memory and its maximum since the start, in MiB. */
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
 * Returns the anonymous memory, in MiB: heaps and stacks, without the files of the program. `brk` is the part of it that
 * grows with brk(2), from which glibc allocates; V8 maps its own pages.
 */
export function anonymousMiB(pid: number): { readonly all: number; readonly brk: number } {
  let all = 0;
  let brk = 0;
  for (const mapping of readFileSync(`/proc/${pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const kib = /^Anonymous:\s+(\d+) kB/m.exec(mapping)?.[1];
    if (kib === undefined) throw new Error(`a mapping in /proc/${pid}/smaps has no Anonymous`);
    all += Number(kib) / 1024;
    if (/\[heap\]$/m.test(mapping)) brk += Number(kib) / 1024;
  }
  return { all, brk };
}

/**
 * Returns the client ports of all IPv4 connections to a port of this machine, including connections that were closed
 * within the last minute, which the kernel still lists (TIME_WAIT).
 */
export function clientPortsOf(serverPort: number): Set<number> {
  const ports = new Set<number>();
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local = '', remote = ''] = line.trim().split(/\s+/);
    // Either end may be in TIME_WAIT.
    if (portOf(remote) === serverPort) ports.add(portOf(local));
    else if (portOf(local) === serverPort && portOf(remote) !== 0) ports.add(portOf(remote));
  }
  return ports;
}

function portOf(address: string): number {
  return Number.parseInt(address.slice(address.indexOf(':') + 1), 16);
}
