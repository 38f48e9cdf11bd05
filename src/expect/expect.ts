import { hash } from 'node:crypto';
import { listAll, listSlices } from '../cli/cluster.ts';
import { runOnCluster } from '../cli/cluster-command.ts';
import { COMMON_FLAGS, CONNECTION_FLAGS } from '../cli/kubectl-flags.ts';
import { labelSelector } from '../cli/label-selector.ts';
import { processTerminal } from '../cli/terminal.ts';
import { yamlText } from '../cli/yaml-text.ts';
import { createNames } from '../core/names.ts';
import { enumOf, textMatching } from '../flag-values.ts';
import { EXIT_FAILURE, EXIT_OK, endWithUsage, parseFlags, type CommandDescription } from '../flags.ts';
import { GROUP_VERSION } from '../k8s/resources.ts';
import { connectedTunnel, connectedTunnels, currentExpectations } from './current-expectations.ts';

/** The command line, also for its completion. */
export const COMMAND = {
  usage: [
    'reverse-tunnel-operator expect --from-current [FLAG ...]',
    'kubectl rt expect --from-current [FLAG ...]',
  ],
  description:
    'Prints ReverseTunnelExpectations for the tunnels that are connected now, to be reviewed and committed. ' +
    'Nodes of a tenant and cluster that are connected through the same number of reporters share an expectation.',
  flags: {
    ...COMMON_FLAGS,
    output: {
      short: 'o',
      metavar: 'yaml|json',
      description: 'output format',
      default: 'yaml',
      read: enumOf(['yaml', 'json']),
    },
    'from-current': { description: 'derive the expectations from the connected tunnels; required' },
    selector: {
      short: 'l',
      metavar: 'SELECTOR',
      description: 'label selector of tunnels, as in kubectl rt get',
      defaultText: 'all',
      read: labelSelector,
    },
    'grace-period': {
      metavar: 'DURATION',
      description: 'spec.gracePeriod of the expectations',
      defaultText: 'the default of the CRD, 60s',
      read: textMatching('^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$', 'must be a duration such as 90s, 5m or 1h30m'),
    },
    ...CONNECTION_FLAGS,
  },
  footer: 'Exit codes: 0 success; 1 failure; 2 invalid flag or value; 130 interrupted.\n',
} satisfies CommandDescription;

/**
 * Runs the command `expect`. Changes nothing in the cluster.
 *
 * @param argv the arguments after `expect`
 * @returns the exit code
 */
export async function runExpect(
  argv: readonly string[],
  terminal = processTerminal(),
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<number> {
  const parsed = parseFlags(COMMAND, argv);
  if (!('values' in parsed)) return endWithUsage('expect', parsed, terminal);
  const { values } = parsed;
  if (!values['from-current'])
    return endWithUsage('expect', { errors: ['--from-current: is required'] }, terminal);
  return await runOnCluster('expect', { ...values, output: 'text' }, env, terminal, async (cluster) => {
    const { namespace } = cluster;
    const { selector } = values;
    const names = createNames((text) => hash('sha256', text, 'buffer'));
    const listed = await listAll(cluster.tunnels, connectedTunnel, terminal.interrupted, selector?.text);
    const entries = await listSlices(
      cluster,
      (slice) =>
        connectedTunnels(
          names,
          slice,
          (labels) => selector?.requirements.every(({ isMet }) => isMet(labels)) ?? true,
        ),
      terminal.interrupted,
    );
    const expectations = currentExpectations(
      [...listed.filter((tunnel) => tunnel !== undefined), ...entries.flat()],
      { apiVersion: GROUP_VERSION, namespace, gracePeriod: values['grace-period'] },
    );
    if (expectations.length === 0) {
      const selected = selector === undefined ? '' : ` that matches ${selector.text}`;
      terminal.err(`expect: no tunnel in namespace ${namespace}${selected} is connected\n`);
      return EXIT_FAILURE;
    }
    terminal.out(
      values.output === 'json'
        ? `${JSON.stringify({ apiVersion: 'v1', kind: 'List', items: expectations }, undefined, 2)}\n`
        : expectations.map((expectation) => yamlText(expectation)).join('---\n'),
    );
    return EXIT_OK;
  });
}
