import { truncateList } from '../cli/format.ts';
import type { DoctorInputs, CrdInfo } from './inputs.ts';
import { unavailable, type CheckResult } from './check-result.ts';
import { pluralize } from '../core/text.ts';

/** The first version in which Kubernetes documents that resourceVersions can be compared, as the operator's cache does. */
const MIN_MINOR_VERSION = 35;
/** Each write takes at least one round trip, so with 64 writes in flight this limits the write rate of a replica. */
const MAX_ROUND_TRIP_MS = 250;

/**
 * Checks that the API server is reachable, fast enough and new enough, and that the namespace exists. If it is unreachable,
 * that is the only result.
 */
export function checkApi({ api, namespace, namespaceExists }: DoctorInputs): CheckResult[] {
  if ('failure' in api) {
    return [
      {
        check: 'api',
        status: 'fail',
        message: api.failure,
        remediation:
          'check --kubeconfig, --context and the network; `kubectl version` must work with the same kubeconfig',
      },
    ];
  }
  const { server, version, roundTripMs } = api.value;
  const results: CheckResult[] = [checkVersion(server, version)];
  if (roundTripMs > MAX_ROUND_TRIP_MS) {
    results.push({
      check: 'api',
      status: 'warn',
      message: `${server} took ${Math.round(roundTripMs)} ms to answer a small request`,
      remediation: 'every ReverseTunnel write takes at least this long; check the API server and etcd',
    });
  }
  // If the account may not read the namespace, the lists of the operator's objects show whether it exists.
  if (namespaceExists === false) {
    results.push({
      check: 'namespace',
      status: 'fail',
      message: `namespace ${namespace} not found`,
      remediation: 'set --namespace to the namespace of the operator',
    });
  }
  return results;
}

/** Compares only versions of the form `v1.N`; another format does not indicate an old version. */
function checkVersion(server: string, version: string): CheckResult {
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
  const message = `${server} is reachable, Kubernetes ${version}`;
  if (major === '1' && Number(minor) < MIN_MINOR_VERSION) {
    return {
      check: 'api',
      status: 'warn',
      message: `${message}: older than 1.${MIN_MINOR_VERSION}`,
      remediation: `upgrade Kubernetes: the operator compares resourceVersions, which is supported since 1.${MIN_MINOR_VERSION}`,
    };
  }
  return { check: 'api', status: 'ok', message };
}

/** Checks that the bundled CRDs are installed and equal to the installed ones. */
export function checkCrds({ crds }: DoctorInputs): CheckResult[] {
  if ('failure' in crds) return [unavailable('crds', crds)];
  const results = crds.value.flatMap((crd) => checkCrd(crd));
  if (results.length > 0) return results;
  const plurals = crds.value.map(({ plural }) => plural);
  return [
    {
      check: 'crds',
      status: 'ok',
      message: `${plurals.join(', ')} match the CRDs bundled with this version`,
    },
  ];
}

/**
 * Checks one CRD. A missing CRD fails the check if the operator requires it; those of policies, expectations and slices are optional. A difference
 * fails the check if it breaks the contract: without the default, objects are created without a status, and without the
 * selectable fields, field selectors are rejected. Other differences are warnings, as CRDs are upgraded before the operator.
 */
function checkCrd({ plural, required, installed, differences }: CrdInfo): CheckResult[] {
  const name = `${plural}.reverse-tunnel.io`;
  if (!installed) {
    const remediation = `install the CRD: kubectl apply --server-side -f crds/${plural}.yaml (or upgrade the Helm release)`;
    const message = `${name} is not served at v1alpha1 with a status subresource`;
    return [{ check: 'crds', status: required ? 'fail' : 'warn', message, remediation }];
  }
  const remediation = `upgrade the CRD: kubectl apply --server-side --force-conflicts -f crds/${plural}.yaml (or the Helm release)`;
  const pathsOf = (severity: string): string[] =>
    differences.filter((difference) => difference.severity === severity).map(({ path }) => path);
  const contract = pathsOf('contract');
  if (contract.length > 0) {
    return [
      {
        check: 'crds',
        status: 'fail',
        message: `${name} differs from the bundled CRD in required fields: ${truncateList(contract)}`,
        remediation,
      },
    ];
  }
  const schema = pathsOf('schema');
  if (schema.length === 0) return [];
  return [
    {
      check: 'crds',
      status: 'warn',
      message: `${name} differs from the bundled CRD: ${pluralize(schema.length, 'difference')}, such as ${truncateList(schema, 3)}`,
      remediation: `${remediation}; or run doctor of the installed version`,
    },
  ];
}

/**
 * Checks that the account has each permission that the operator needs in its namespace. Every missing one fails the check,
 * even if it is needed only hours later, as for a delete.
 */
export function checkPermissions({ permissions, account, namespace }: DoctorInputs): CheckResult[] {
  if ('failure' in permissions) return [unavailable('permissions', permissions)];
  const missing = permissions.value.filter(({ allowed }) => !allowed).map(({ permission }) => permission);
  if (missing.length === 0) {
    const message = `${account} has all ${permissions.value.length} permissions that the operator needs in ${namespace}`;
    return [{ check: 'permissions', status: 'ok', message }];
  }
  return [
    {
      check: 'permissions',
      status: 'fail',
      message: `${account} lacks ${missing.length} of ${permissions.value.length} permissions in ${namespace}: ${truncateList(missing, 8)}`,
      remediation:
        'bind the Role in docs/operations.md#permissions to it, or set --service-account to the ServiceAccount of the operator',
    },
  ];
}
