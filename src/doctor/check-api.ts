import { counted } from '../inspect/counted.ts';
import type { DoctorFacts, KindFacts } from './facts.ts';
import { someOf, unanswered, type Finding } from './finding.ts';

/** From here on versions of one resource may be compared, on which the operator's cache stands. */
const LEAST_MINOR = 35;
/** A write waits as long: with 64 in flight that bounds what a replica can write. */
const SLOW_ROUND_TRIP_MS = 250;

/**
 * The API server: it answers, it is new enough, the namespace is there. Without an answer that is the only finding, as
 * whatever else is asked of it would say the same.
 */
export function checkApi({ api, namespace, namespaceExists }: DoctorFacts): Finding[] {
  if ('failure' in api) {
    return [
      {
        check: 'api',
        level: 'fail',
        says: api.failure,
        todo: 'check --kubeconfig, --context and the network; `kubectl version` must answer with the same kubeconfig',
      },
    ];
  }
  const { server, version, roundTripMs } = api.value;
  const findings: Finding[] = [checkVersion(server, version)];
  if (roundTripMs > SLOW_ROUND_TRIP_MS) {
    findings.push({
      check: 'api',
      level: 'warn',
      says: `${server} took ${Math.round(roundTripMs)} ms for one small answer`,
      todo: 'every row written waits as long; look at the API server, and at etcd behind it',
    });
  }
  // Who may not ask for namespaces need not: each list of the operator's objects tells as well.
  if (namespaceExists === false) {
    findings.push({
      check: 'namespace',
      level: 'fail',
      says: `there is no namespace ${namespace}`,
      todo: 'give the namespace of the operator by --namespace',
    });
  }
  return findings;
}

/** Judged is `v1.N` only: a version that is written otherwise is no sign of an old one. */
function checkVersion(server: string, version: string): Finding {
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
  const says = `${server} answers, Kubernetes ${version}`;
  if (major === '1' && Number(minor) < LEAST_MINOR) {
    return {
      check: 'api',
      level: 'warn',
      says: `${says}: older than 1.${LEAST_MINOR}`,
      todo: `upgrade: that resourceVersions may be compared is documented from 1.${LEAST_MINOR} on, and the operator does`,
    };
  }
  return { check: 'api', level: 'ok', says };
}

/** The CRDs: served at this version, and as this version ships them. */
export function checkKinds({ kinds }: DoctorFacts): Finding[] {
  if ('failure' in kinds) return [unanswered('crds', kinds)];
  const findings = kinds.value.flatMap((kind) => checkKind(kind));
  if (findings.length > 0) return findings;
  const plurals = kinds.value.map(({ plural }) => plural);
  return [
    { check: 'crds', level: 'ok', says: `${plurals.join(', ')} are served as this version ships them` },
  ];
}

/**
 * Not served is a failure where the operator needs the kind; policies may be left out on purpose. Served differently is
 * one where something counts on it: a status that rows are not born with, a selector that finds nothing. The rest may be
 * an upgrade in which CRDs are ahead of the operator.
 */
function checkKind({ plural, required, served, differences }: KindFacts): Finding[] {
  const name = `${plural}.reverse-tunnel.io`;
  if (!served) {
    const todo = `install it: kubectl apply --server-side -f crds/${plural}.yaml (or upgrade the Helm release)`;
    const says = `${name} is not served at v1alpha1 with its status`;
    return [{ check: 'crds', level: required ? 'fail' : 'warn', says, todo }];
  }
  const todo = `upgrade it: kubectl apply --server-side --force-conflicts -f crds/${plural}.yaml (or the Helm release)`;
  const pathsOf = (weight: string): string[] =>
    differences.filter((one) => one.weight === weight).map(({ path }) => path);
  const contract = pathsOf('contract');
  if (contract.length > 0) {
    return [
      {
        check: 'crds',
        level: 'fail',
        says: `${name} differs in what is counted on: ${someOf(contract)}`,
        todo,
      },
    ];
  }
  const schema = pathsOf('schema');
  if (schema.length === 0) return [];
  return [
    {
      check: 'crds',
      level: 'warn',
      says: `${name} is another than this version ships: ${counted(schema.length, 'difference')}, as ${someOf(schema, 3)}`,
      todo: `${todo}; or run the doctor of the version that is installed`,
    },
  ];
}

/**
 * The rights: each that the operator uses, in its namespace. One that is missing is a failure whatever it is for: what
 * it is needed for may come only hours later, as a delete does.
 */
export function checkRights({ rights, account, namespace }: DoctorFacts): Finding[] {
  if ('failure' in rights) return [unanswered('rights', rights)];
  const missing = rights.value.filter(({ allowed }) => !allowed).map(({ right }) => right);
  if (missing.length === 0) {
    const says = `${account} has all ${rights.value.length} rights that the operator uses in ${namespace}`;
    return [{ check: 'rights', level: 'ok', says }];
  }
  return [
    {
      check: 'rights',
      level: 'fail',
      says: `${account} lacks ${missing.length} of ${rights.value.length} rights in ${namespace}: ${someOf(missing, 8)}`,
      todo: 'give it the Role of docs/operations.md#rights; or name the account of the operator by --service-account',
    },
  ];
}
