import { reporterViolation, type Violation } from '../core/report.ts';
import type { Locality } from '../core/reporter-object.ts';
import type { EnvoyMetadata } from '../core/reporter-status.ts';
import { quote, sanitize } from '../core/text.ts';
import type { ReporterId } from '../core/tunnel.ts';
import { errorMessage } from '../error-message.ts';
import { MalformedReportError } from './decode.ts';
import type { NodeMessage } from './messages.ts';

/** The CRD's limit for each text of the metadata, applied to UTF-16 units, so at most as many characters. */
const MAX_TEXT_LENGTH = 256;
/** Envoy's `node` has an ID and a cluster, some 100 bytes; a larger one is decoded with each report. */
const MAX_CACHED_NODE_BYTES = 1024;

/**
 * The reporter of a stream, as identified by the `node` of its first report. Later reports may omit `node`, but must
 * not change it.
 */
export class NodeIdentity {
  readonly #decodeNode: (bytes: Uint8Array) => NodeMessage;
  #reporter: ReporterId | undefined;
  #envoy: EnvoyMetadata = { version: undefined, locality: undefined };
  /** The bytes of the first `node`: Envoy repeats them with each report. */
  #nodeBytes: Buffer | undefined;

  /** @param decodeNode throws if the bytes are not a Node */
  constructor(decodeNode: (bytes: Uint8Array) => NodeMessage) {
    this.#decodeNode = decodeNode;
  }

  /** Undefined until the first report has been checked. */
  get reporter(): ReporterId | undefined {
    return this.#reporter;
  }

  /** What the Envoy reports about itself; empty until the first report has been checked. */
  get envoy(): EnvoyMetadata {
    return this.#envoy;
  }

  /**
   * Checks the `node` of a report; the first valid one identifies the reporter.
   *
   * @param nodeBytes undefined: the report omits `node`
   * @throws MalformedReportError if the bytes are not a Node
   */
  check(nodeBytes: Uint8Array | undefined): Violation | undefined {
    if (nodeBytes === undefined) {
      return this.#reporter === undefined
        ? { field: 'node', reason: 'missing', message: 'node: required on the first report of a stream' }
        : undefined;
    }
    if (this.#nodeBytes?.equals(nodeBytes) === true) return undefined;
    const node = this.#decode(nodeBytes);
    const { id = '', cluster = '' } = node;
    const known = this.#reporter;
    if (known === undefined) {
      const violation = reporterViolation(id, cluster);
      if (violation !== undefined) return violation;
      this.#reporter = { id, cluster };
      this.#envoy = envoyMetadata(node);
      // A copy: the bytes are a view into the report, and a first report may be large.
      if (nodeBytes.length <= MAX_CACHED_NODE_BYTES) this.#nodeBytes = Buffer.from(nodeBytes);
      return undefined;
    }
    if (id === known.id && cluster === known.cluster) return undefined;
    const field = id === known.id ? 'node.cluster' : 'node.id';
    const [from, to] = id === known.id ? [known.cluster, cluster] : [known.id, id];
    return {
      field,
      reason: 'changed',
      message: `${field}: changed from ${quote(from)} to ${quote(to)} within one stream`,
    };
  }

  /** Returns the reporter that the `node` of a report probably identifies, without checking it; undefined if it cannot. */
  guess(nodeBytes: Uint8Array | undefined): ReporterId | undefined {
    if (this.#reporter !== undefined || nodeBytes === undefined) return this.#reporter;
    try {
      const { id = '', cluster = '' } = this.#decodeNode(nodeBytes);
      return { id, cluster };
    } catch {
      return undefined;
    }
  }

  #decode(bytes: Uint8Array): NodeMessage {
    try {
      return this.#decodeNode(bytes);
    } catch (error) {
      throw new MalformedReportError(`node: cannot decode Node: ${errorMessage(error)}`, { cause: error });
    }
  }
}

/**
 * Extracts what a Node contains in addition to the reporter's identity. Invalid texts are never a reason to reject a
 * reporter: they are truncated and sanitized.
 */
export function envoyMetadata({
  locality,
  user_agent_version,
  user_agent_build_version,
}: NodeMessage): EnvoyMetadata {
  // The two are a oneof on the wire: Envoy sends numbers, other clients may send text.
  const buildVersion = user_agent_build_version?.version;
  const version =
    buildVersion === undefined
      ? sanitizedText(user_agent_version)
      : [buildVersion.major_number, buildVersion.minor_number, buildVersion.patch]
          .map((part) => part ?? 0)
          .join('.');
  const region = sanitizedText(locality?.region);
  const zone = sanitizedText(locality?.zone);
  const subZone = sanitizedText(locality?.sub_zone);
  const fields: Locality = {
    ...(region === undefined ? {} : { region }),
    ...(zone === undefined ? {} : { zone }),
    ...(subZone === undefined ? {} : { subZone }),
  };
  return { version, locality: Object.keys(fields).length === 0 ? undefined : fields };
}

function sanitizedText(value: string | undefined): string | undefined {
  return value === undefined || value === '' ? undefined : sanitize(value, MAX_TEXT_LENGTH);
}
