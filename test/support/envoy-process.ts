/** The Envoys of the tests, which the demo runs as well. */
export { substituteBootstrap, substituteExample, validateBootstrap } from '../../envoy/bootstrap.ts';
export { startEnvoy, type EnvoyProcess } from '../../envoy/process.ts';
