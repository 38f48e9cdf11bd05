import { systemClock } from '../clock.ts';
import { parseHostPort } from '../host-port.ts';
import { openCluster, type Cluster } from '../cli/cluster.ts';
import { COMMON_FLAGS_HELP, parseCommonFlags, type CommonFlags } from '../cli/command-flags.ts';
import { INTERRUPTED, processTerminal } from '../cli/terminal.ts';
import { ConnectionError } from '../k8s/connection.ts';
import type { CheckResult } from './check-result.ts';
import { runChecks } from './run-checks.ts';
import { collectInputs, type DoctorOptions } from './collect.ts';

const HELP = `Usage: reverse-tunnel-operator doctor [FLAG ...]
       kubectl rt doctor [FLAG ...]

Checks the API server, CRDs, permissions, replicas, certificates, reporters, ReverseTunnel objects and policies. Prints one
line per check, with a remediation where one is needed. Read-only.

${COMMON_FLAGS_HELP}  --service-account NAME
        check the permissions of this ServiceAccount in the namespace instead of those of the caller
  --grpc-address HOST:PORT
        reporting service of a replica to probe; repeatable
  --http-address HOST:PORT
        HTTP port of a replica to probe; repeatable
  --tls-cert FILE
        certificate of the operator, to check its validity dates
  --tls-client-ca FILE
        client CA of the operator, to check its validity dates
  --help

Exit codes: 0 no check failed (there may be warnings); 1 a check failed; 2 invalid flag or value.
`;

/**
 * `doctor`: asks everything, judges, and prints.
 *
 * @param argv the arguments after `doctor`
 * @returns the exit code
 */
export async function runDoctor(argv: readonly string[], terminal = processTerminal()): Promise<number> {
  const parsed = parseDoctor(argv);
  if ('help' in parsed) {
    terminal.out(HELP);
    return 0;
  }
  if ('errors' in parsed) {
    for (const mistake of parsed.errors) terminal.err(`doctor: ${mistake}\n`);
    terminal.err('doctor: see --help for all flags\n');
    return 2;
  }
  const { flags, options } = parsed;
  let cluster: Cluster;
  try {
    cluster = await openCluster(flags, process.env, systemClock, 'doctor');
  } catch (error) {
    if (!(error instanceof ConnectionError)) throw error;
    terminal.err(`doctor: ${error.message}\n`);
    return 1;
  }
  try {
    const { interrupted } = terminal;
    const inputs = await collectInputs(cluster, options, systemClock, interrupted, (what) =>
      terminal.err(`doctor: ${what}\n`),
    );
    // What was not asked to its end is no finding.
    if (interrupted.aborted) return INTERRUPTED;
    const results = runChecks(inputs);
    const failed = results.some(({ status }) => status === 'fail');
    const { namespace } = inputs;
    terminal.out(
      flags.output === 'json'
        ? `${JSON.stringify({ namespace, failed, findings: results }, undefined, 2)}\n`
        : `${results.map(formatResult).join('')}${formatTotals(results)}`,
    );
    return failed ? 1 : 0;
  } finally {
    await cluster.close();
  }
}

/** Names every mistake at once: whoever mends one is not to meet the next. */
function parseDoctor(
  argv: readonly string[],
): { help: true } | { errors: readonly string[] } | { flags: CommonFlags; options: DoctorOptions } {
  const parsed = parseCommonFlags(argv, {
    'service-account': { type: 'string' },
    'grpc-address': { type: 'string', multiple: true },
    'http-address': { type: 'string', multiple: true },
    'tls-cert': { type: 'string' },
    'tls-client-ca': { type: 'string' },
  });
  if (!('flags' in parsed)) return parsed;
  const { flags, extra } = parsed;
  const errors: string[] = [];
  const addresses = (flag: string): string[] => {
    const rawValue = extra[flag];
    const list = Array.isArray(rawValue) ? rawValue.map(String) : [];
    for (const text of list) {
      // Port 0 is one to listen on, and leads nowhere.
      if (parseHostPort(text) === undefined || text.endsWith(':0')) {
        errors.push(
          `--${flag}: ${JSON.stringify(text)} must be host:port, such as 127.0.0.1:18000 or [::1]:18000`,
        );
      }
    }
    return list;
  };
  const singleValue = (flag: string): string | undefined => {
    const rawValue = extra[flag];
    if (rawValue === '') errors.push(`--${flag}: must not be empty`);
    return typeof rawValue === 'string' ? rawValue : undefined;
  };
  const options: DoctorOptions = {
    serviceAccount: singleValue('service-account'),
    grpcAddresses: addresses('grpc-address'),
    httpAddresses: addresses('http-address'),
    tlsCert: singleValue('tls-cert'),
    tlsClientCa: singleValue('tls-client-ca'),
  };
  return errors.length > 0 ? { errors } : { flags, options };
}

/** The check's line, and what to do below it. */
function formatResult({ status, check, message, remediation }: CheckResult): string {
  const line = `${status.padEnd(4)}  ${check.padEnd(12)}  ${message}\n`;
  return remediation === undefined ? line : `${line}${' '.repeat(20)}→ ${remediation}\n`;
}

/** The last line: by it one sees whether the others have to be read. */
function formatTotals(results: readonly CheckResult[]): string {
  const count = (expected: string): number => results.filter(({ status }) => status === expected).length;
  return `${count('fail')} failed, ${count('warn')} warned, ${count('ok')} ok, ${count('skip')} not checked\n`;
}
