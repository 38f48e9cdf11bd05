import { systemClock } from '../clock.ts';
import { parseHostPort } from '../host-port.ts';
import { openCluster, type Cluster } from '../inspect/cluster.ts';
import { INSPECT_HELP, parseInspect, type InspectFlags } from '../inspect/command-flags.ts';
import { INTERRUPTED, processTerminal } from '../inspect/terminal.ts';
import { ConnectionError } from '../k8s/connection.ts';
import type { Finding } from './finding.ts';
import { findings } from './findings.ts';
import { gatherFacts, type DoctorQuestions } from './gather.ts';

const HELP = `Usage: reverse-tunnel-operator doctor [FLAG ...]
       kubectl rt doctor [FLAG ...]

Checks the API server, CRDs, permissions, replicas, certificates, reporters, ReverseTunnel objects and policies. Prints one
line per check, with a remediation where one is needed. Read-only.

${INSPECT_HELP}  --service-account NAME
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
  if ('mistakes' in parsed) {
    for (const mistake of parsed.mistakes) terminal.err(`doctor: ${mistake}\n`);
    terminal.err('doctor: see --help for all flags\n');
    return 2;
  }
  const { flags, questions } = parsed;
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
    const facts = await gatherFacts(cluster, questions, systemClock, interrupted, (what) =>
      terminal.err(`doctor: ${what}\n`),
    );
    // What was not asked to its end is no finding.
    if (interrupted.aborted) return INTERRUPTED;
    const found = findings(facts);
    const failed = found.some(({ status }) => status === 'fail');
    const { namespace } = facts;
    terminal.out(
      flags.output === 'json'
        ? `${JSON.stringify({ namespace, failed, findings: found }, undefined, 2)}\n`
        : `${found.map(lines).join('')}${verdict(found)}`,
    );
    return failed ? 1 : 0;
  } finally {
    await cluster.close();
  }
}

/** Names every mistake at once: whoever mends one is not to meet the next. */
function parseDoctor(
  argv: readonly string[],
): { help: true } | { mistakes: readonly string[] } | { flags: InspectFlags; questions: DoctorQuestions } {
  const parsed = parseInspect(argv, {
    'service-account': { type: 'string' },
    'grpc-address': { type: 'string', multiple: true },
    'http-address': { type: 'string', multiple: true },
    'tls-cert': { type: 'string' },
    'tls-client-ca': { type: 'string' },
  });
  if (!('flags' in parsed)) return parsed;
  const { flags, own } = parsed;
  const mistakes: string[] = [];
  const addresses = (flag: string): string[] => {
    const given = own[flag];
    const list = Array.isArray(given) ? given.map(String) : [];
    for (const text of list) {
      // Port 0 is one to listen on, and leads nowhere.
      if (parseHostPort(text) === undefined || text.endsWith(':0')) {
        mistakes.push(
          `--${flag}: ${JSON.stringify(text)} must be host:port, such as 127.0.0.1:18000 or [::1]:18000`,
        );
      }
    }
    return list;
  };
  const one = (flag: string): string | undefined => {
    const given = own[flag];
    if (given === '') mistakes.push(`--${flag}: must not be empty`);
    return typeof given === 'string' ? given : undefined;
  };
  const questions: DoctorQuestions = {
    serviceAccount: one('service-account'),
    grpcAddresses: addresses('grpc-address'),
    httpAddresses: addresses('http-address'),
    tlsCert: one('tls-cert'),
    tlsClientCa: one('tls-client-ca'),
  };
  return mistakes.length > 0 ? { mistakes } : { flags, questions };
}

/** The check's line, and what to do below it. */
function lines({ status, check, message, remediation }: Finding): string {
  const line = `${status.padEnd(4)}  ${check.padEnd(12)}  ${message}\n`;
  return remediation === undefined ? line : `${line}${' '.repeat(20)}→ ${remediation}\n`;
}

/** The last line: by it one sees whether the others have to be read. */
function verdict(found: readonly Finding[]): string {
  const count = (wanted: string): number => found.filter(({ status }) => status === wanted).length;
  return `${count('fail')} failed, ${count('warn')} warned, ${count('ok')} ok, ${count('skip')} not checked\n`;
}
