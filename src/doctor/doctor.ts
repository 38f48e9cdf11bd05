import { systemClock } from '../clock.ts';
import { runOnCluster } from '../cli/cluster-command.ts';
import { COMMON_FLAGS, CONNECTION_FLAGS } from '../cli/kubectl-flags.ts';
import { EXIT_INTERRUPTED, processTerminal } from '../cli/terminal.ts';
import { hostPort, nonEmpty } from '../flag-values.ts';
import { EXIT_FAILURE, EXIT_OK, endWithUsage, parseFlags, type CommandDescription } from '../flags.ts';
import { formatResults } from './check-result.ts';
import { collectInputs } from './collect.ts';
import { runChecks } from './run-checks.ts';

/** The command line, also for its completion. */
export const COMMAND = {
  usage: ['reverse-tunnel-operator doctor [FLAG ...]', 'kubectl rt doctor [FLAG ...]'],
  description:
    'Checks the API server, CRDs, permissions, replicas, certificates, reporters, ReverseTunnel objects and policies. ' +
    'Prints one line per check, with a remediation where one is needed. Read-only.',
  flags: {
    ...COMMON_FLAGS,
    'service-account': {
      metavar: 'NAME',
      description:
        'check the permissions of this ServiceAccount in the namespace instead of those of the caller',
      read: nonEmpty,
    },
    'grpc-address': {
      metavar: 'HOST:PORT',
      description: 'reporting service of a replica to probe; repeatable',
      repeatable: true,
      read: hostPort(1),
    },
    'http-address': {
      metavar: 'HOST:PORT',
      description: 'HTTP port of a replica to probe; repeatable',
      repeatable: true,
      read: hostPort(1),
    },
    'tls-cert': {
      metavar: 'FILE',
      description: 'certificate of the operator, to check its validity dates',
      read: nonEmpty,
    },
    'tls-client-ca': {
      metavar: 'FILE',
      description: 'client CA of the operator, to check its validity dates',
      read: nonEmpty,
    },
    ...CONNECTION_FLAGS,
  },
  footer:
    'Exit codes: 0 no check failed (there may be warnings); 1 a check failed; 2 invalid flag or value; 130 interrupted.\n',
} satisfies CommandDescription;

/**
 * Runs the command `doctor`: collects the inputs, runs the checks and prints the results.
 *
 * @param argv the arguments after `doctor`
 * @returns the exit code
 */
export async function runDoctor(
  argv: readonly string[],
  terminal = processTerminal(),
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<number> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return endWithUsage('doctor', parsed, terminal);
  const { values } = parsed;
  return await runOnCluster('doctor', values, env, terminal, async (cluster) => {
    const { interrupted } = terminal;
    const options = {
      serviceAccount: values['service-account'],
      grpcAddresses: values['grpc-address'],
      httpAddresses: values['http-address'],
      tlsCert: values['tls-cert'],
      tlsClientCa: values['tls-client-ca'],
    };
    const inputs = await collectInputs(cluster, options, systemClock, interrupted, (reason) =>
      terminal.err(`doctor: ${reason}\n`),
    );
    // The inputs of an interrupted command are incomplete.
    if (interrupted.aborted) return EXIT_INTERRUPTED;
    const results = runChecks(inputs);
    const failed = results.some(({ status }) => status === 'fail');
    const { namespace } = inputs;
    terminal.out(
      values.output === 'json'
        ? `${JSON.stringify({ namespace, failed, findings: results }, undefined, 2)}\n`
        : formatResults(results),
    );
    return failed ? EXIT_FAILURE : EXIT_OK;
  });
}
