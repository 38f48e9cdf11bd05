import { pluralize } from '../cli/pluralize.ts';
import type { DoctorInputs, CrdInfo } from './inputs.ts';
import { truncateList, unavailable, type CheckResult } from './check-result.ts';

/** From here on versions of one resource may be compared, on which the operator's cache stands. */
const MIN_MINOR_VERSION = 35;
/** A write waits as long: with 64 in flight that bounds what a replica can write. */
const MAX_ROUND_TRIP_MS = 250;

/**
 * The API server: it answers, it is new enough, the namespace is there. Without an answer that is the only finding, as
 * whatever else is asked of it would say the same.
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
  const findings: CheckResult[] = [checkVersion(server, version)];
  if (roundTripMs > MAX_ROUND_TRIP_MS) {
    findings.push({
      check: 'api',
      status: 'warn',
      message: `${server} took ${Math.round(roundTripMs)} ms to answer a small request`,
      remediation: 'every ReverseTunnel write takes at least this long; check the API server and etcd',
    });
  }
  // Who may not ask for namespaces need not: each list of the operator's objects tells as well.
  if (namespaceExists === false) {
    findings.push({
      check: 'namespace',
      status: 'fail',
      message: `namespace ${namespace} not found`,
      remediation: 'set --namespace to the namespace of the operator',
    });
  }
  return findings;
}

/** Judged is `v1.N` only: a version that is written otherwise is no sign of an old one. */
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

/** The CRDs: served at this version, and as this version ships them. */
export function checkCrds({ crds }: DoctorInputs): CheckResult[] {
  if ('failure' in crds) return [unavailable('crds', crds)];
  const findings = crds.value.flatMap((kind) => checkCrd(kind));
  if (findings.length > 0) return findings;
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
 * Not served is a failure where the operator needs the kind; policies may be left out on purpose. Served differently is
 * one where something counts on it: a status that rows are not born with, a selector that finds nothing. The rest may be
 * an upgrade in which CRDs are ahead of the operator.
 */
function checkCrd({ plural, required, installed, differences }: CrdInfo): CheckResult[] {
  const name = `${plural}.reverse-tunnel.io`;
  if (!installed) {
    const remediation = `install the CRD: kubectl apply --server-side -f crds/${plural}.yaml (or upgrade the Helm release)`;
    const message = `${name} is not served at v1alpha1 with a status subresource`;
    return [{ check: 'crds', status: required ? 'fail' : 'warn', message, remediation }];
  }
  const remediation = `upgrade the CRD: kubectl apply --server-side --force-conflicts -f crds/${plural}.yaml (or the Helm release)`;
  const pathsOf = (weight: string): string[] =>
    differences.filter((difference) => difference.severity === weight).map(({ path }) => path);
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
 * The rights: each that the operator uses, in its namespace. One that is missing is a failure whatever it is for: what
 * it is needed for may come only hours later, as a delete does.
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
