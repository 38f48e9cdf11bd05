import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';

/** What every hand tool is told: which cluster, which namespace, how to print. */
export interface CommonFlags {
  /** Path; undefined: in-cluster, else KUBECONFIG, else ~/.kube/config. */
  readonly kubeconfig: string | undefined;
  /** Undefined: the current one. */
  readonly context: string | undefined;
  /** Undefined: the pod's, else the context's, else default. */
  readonly namespace: string | undefined;
  readonly output: 'text' | 'json';
}

/** The flags that all hand tools have, for their `--help`. */
export const COMMON_FLAGS_HELP = `  --kubeconfig FILE
        kubeconfig of the API server (default: in-cluster, then $KUBECONFIG, then ~/.kube/config)
  --context NAME
        kubeconfig context (default: the current context)
  -n, --namespace NAME
        namespace of the operator (default: the pod's namespace, then the context's, then default)
  -o, --output text|json
        output format (default: text)
`;

/** A DNS label, as the API server wants it (RFC 1123): else the path of a request would be another. */
const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const COMMON_FLAG_OPTIONS: ParseArgsOptionsConfig = {
  kubeconfig: { type: 'string' },
  context: { type: 'string' },
  namespace: { type: 'string', short: 'n' },
  output: { type: 'string', short: 'o' },
  help: { type: 'boolean', short: 'h' },
};

/** A command line taken apart: what was asked for, or every mistake in it, one line each. */
export type ParsedCommonFlags =
  | { readonly help: true }
  | { readonly errors: readonly string[] }
  | { readonly flags: CommonFlags; readonly extra: Readonly<Record<string, unknown>> };

/**
 * Reads the flags that all hand tools have, and leaves the values of `ownOptions` to the caller.
 *
 * @param argv the arguments after the command's name
 */
export function parseCommonFlags(
  argv: readonly string[],
  extraOptions: ParseArgsOptionsConfig,
): ParsedCommonFlags {
  let values: Readonly<Record<string, unknown>>;
  try {
    const options = { ...COMMON_FLAG_OPTIONS, ...extraOptions };
    ({ values } = parseArgs({ args: [...argv], options, allowPositionals: false }));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Node goes on with advice for who wrote the program; its first sentence names the flag.
    return { errors: [message.split(/\.\s|\n/)[0] ?? message] };
  }
  const { kubeconfig, context, namespace, output, help, ...extra } = values;
  if (help === true) return { help: true };
  const errors: string[] = [];
  for (const [flag, value] of Object.entries({ kubeconfig, context })) {
    if (value === '') errors.push(`--${flag}: must not be empty`);
  }
  if (namespace !== undefined && !(typeof namespace === 'string' && NAMESPACE.test(namespace))) {
    errors.push(
      `--namespace: ${JSON.stringify(namespace)} must be at most 63 lower-case letters, digits and dashes`,
    );
  }
  if (output !== undefined && output !== 'text' && output !== 'json') {
    errors.push(`--output: ${JSON.stringify(output)} must be one of text, json`);
  }
  if (errors.length > 0) return { errors };
  return {
    flags: {
      kubeconfig: optionalString(kubeconfig),
      context: optionalString(context),
      namespace: optionalString(namespace),
      output: output === 'json' ? 'json' : 'text',
    },
    extra,
  };
}

function optionalString(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
