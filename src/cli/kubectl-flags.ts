import { enumOf, namespace, parseDuration, type ReadValue } from '../flag-values.ts';
import type { Flags, FlagValues } from '../flags.ts';
import type { KubeconfigOverrides } from '../k8s/kubeconfig-merge.ts';

/** The first flags of all commands that inspect a cluster. */
export const COMMON_FLAGS = {
  kubeconfig: {
    metavar: 'FILE',
    description: 'kubeconfig of the API server',
    defaultText: '$KUBECONFIG, then ~/.kube/config, then in-cluster',
    read: optional,
  },
  context: {
    metavar: 'NAME',
    description: 'kubeconfig context',
    defaultText: 'the current context',
    read: optional,
  },
  namespace: {
    short: 'n',
    metavar: 'NAME',
    description: 'namespace of the operator',
    defaultText: "the context's, then the pod's, then default",
    read: optionalNamespace,
  },
  output: {
    short: 'o',
    metavar: 'text|json',
    description: 'output format',
    default: 'text',
    read: enumOf(['text', 'json']),
  },
} satisfies Flags;

/** The other flags of kubectl about the connection, which a command lists after its own flags. */
export const CONNECTION_FLAGS = {
  cluster: {
    metavar: 'NAME',
    description: 'kubeconfig cluster instead of that of the context',
    read: optional,
  },
  user: { metavar: 'NAME', description: 'kubeconfig user instead of that of the context', read: optional },
  server: { short: 's', metavar: 'URL', description: 'address of the API server', read: optional },
  'certificate-authority': {
    metavar: 'FILE',
    description: "CA of the API server's certificate",
    read: optional,
  },
  'tls-server-name': {
    metavar: 'NAME',
    description: "name in the API server's certificate",
    defaultText: 'the host of the server',
    read: optional,
  },
  'insecure-skip-tls-verify': { description: "do not verify the API server's certificate" },
  'proxy-url': { metavar: 'URL', description: 'proxy for the API server', read: optional },
  token: { metavar: 'TOKEN', description: 'bearer token', read: optional },
  'client-certificate': { metavar: 'FILE', description: 'client certificate', read: optional },
  'client-key': { metavar: 'FILE', description: 'key of the client certificate', read: optional },
  username: { metavar: 'NAME', description: 'user name for basic authentication', read: optional },
  password: { metavar: 'TEXT', description: 'password for basic authentication', read: optional },
  as: { metavar: 'NAME', description: 'user to impersonate', read: optional },
  'as-uid': { metavar: 'UID', description: 'UID to impersonate', read: optional },
  'as-group': {
    metavar: 'NAME',
    description: 'group to impersonate; repeatable',
    repeatable: true,
    read: optional,
  },
  'as-user-extra': {
    metavar: 'KEY=VALUE',
    description: 'extra field to impersonate; repeatable',
    repeatable: true,
    read: optional,
  },
  'request-timeout': {
    metavar: 'DURATION',
    description: 'limit for each request, such as 30 or 30s; 0: the limits of this command',
    default: '0',
    read: requestTimeout,
  },
  'cache-dir': {
    metavar: 'DIR',
    description: 'accepted and ignored, because nothing is cached',
    read: optional,
  },
  'disable-compression': { description: 'accepted and ignored, because responses are never compressed' },
} satisfies Flags;

/** The values of `COMMON_FLAGS` and `CONNECTION_FLAGS`; undefined where a flag is omitted or empty. */
export type KubectlFlags = FlagValues<typeof COMMON_FLAGS & typeof CONNECTION_FLAGS>;

/** Returns what the flags replace in a kubeconfig. */
export function toOverrides(flags: KubectlFlags): KubeconfigOverrides {
  const extra: Record<string, string[]> = {};
  for (const item of flags['as-user-extra']) {
    const [key = '', ...value] = (item ?? '').split('=');
    // kubectl ignores what is not KEY=VALUE.
    if (value.length > 0) (extra[key] ??= []).push(value.join('='));
  }
  return {
    context: flags.context,
    cluster: flags.cluster,
    user: flags.user,
    clusterFields: {
      server: flags.server,
      'certificate-authority': flags['certificate-authority'],
      'tls-server-name': flags['tls-server-name'],
      'insecure-skip-tls-verify': flags['insecure-skip-tls-verify'] ? true : undefined,
      'proxy-url': flags['proxy-url'],
    },
    userFields: {
      token: flags.token,
      'client-certificate': flags['client-certificate'],
      'client-key': flags['client-key'],
      username: flags.username,
      password: flags.password,
      as: flags.as,
      'as-uid': flags['as-uid'],
      'as-groups': flags['as-group'],
      'as-user-extra': Object.keys(extra).length === 0 ? undefined : extra,
    },
  };
}

/** Accepts any text; an empty one counts as omitted, as in kubectl. */
function optional(text: string): ReturnType<ReadValue<string | undefined>> {
  return { value: text === '' ? undefined : text };
}

function optionalNamespace(text: string): ReturnType<ReadValue<string | undefined>> {
  return text === '' ? { value: undefined } : namespace(text);
}

/** Accepts whole seconds or a duration; 0 is undefined. */
function requestTimeout(text: string): ReturnType<ReadValue<number | undefined>> {
  const parsed = /^\d{1,9}$/.test(text) ? { ms: Number(text) * 1000 } : parseDuration(text);
  if ('error' in parsed)
    return { expected: 'must be whole seconds or a duration such as 30s or 2m; 0: no limit' };
  return { value: parsed.ms === 0 ? undefined : parsed.ms };
}
